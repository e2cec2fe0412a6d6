"""Many limits in one worker, on real workers: what each of them gets, and what they cost together."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from celery_global_rate.limits.limit import Limit
from testbed.cluster import Cluster
from testbed.eye import eye
from testbed.scenarios import script_calls
from testbed.server import Redis
from testbed.windows import excess, since

from .busy import cpu_s, fresh_servers

SETTLE_S = 2.0


def names(count: int) -> list[str]:
    """The tasks of `testbed.many`."""
    return [f"many.task{number:03}" for number in range(count)]


def cluster_of(stack: ExitStack, count: int, rate: str | None, messages: int, workers: int) -> tuple[Cluster, Redis]:
    """Workers on a backlog of so many tasks with a limit each, in turn; without the extension if no rate is given."""
    broker, limiter = fresh_servers(stack)
    conf = {"global_rate_max_held": 100_000} if rate else {}
    cluster = stack.enter_context(Cluster(broker.url, limiter.url, rate, extension=rate is not None, conf=conf))
    cluster.environment.update(GLOBAL_RATE_MANY=str(count), GLOBAL_RATE_MANY_RATE=rate or "")
    for _ in range(messages):
        for name in names(count):
            cluster.send(name)
    cluster.start(workers, options=["-I", "testbed.many"])
    return cluster, limiter


def reads(server: Redis) -> int:
    """How often a server has read from its connections, which is how often somebody has written to it."""
    return int(server.client().info("stats")["total_reads_processed"])


def costs(cluster: Cluster, limiter: Redis) -> tuple[int, int, float]:
    """Writes to the limiter's server so far, calls of scripts, and processor time of the workers in seconds."""
    return reads(limiter), script_calls(limiter.client()), cpu_s(cluster)


def many(count: int, rate: str, workers: int = 2, seconds: float = 8.0) -> dict[str, Any]:
    """Limits with a backlog each, and beside it what the same workers start without any limit."""
    limit = Limit.parse(rate)
    assert limit is not None
    with ExitStack() as stack:
        cluster, _ = cluster_of(stack, count, None, int(1500 * seconds * 1.5 / count) + 1, workers)
        time.sleep(SETTLE_S)
        begin = time.monotonic()
        time.sleep(seconds / 2)
        stock = releases(cluster, count, begin, time.monotonic())[0] / (seconds / 2)
    with ExitStack() as stack:
        messages = int(limit.per_second * (SETTLE_S + seconds + 4) * 1.5) + 5
        cluster, limiter = cluster_of(stack, count, rate, messages, workers)
        time.sleep(SETTLE_S)
        before, begin = costs(cluster, limiter), time.monotonic()
        time.sleep(seconds)
        after, end = costs(cluster, limiter), time.monotonic()
        starts, worst = releases(cluster, count, begin, end, limit)
    passed_s = end - begin
    possible = min(count * limit.per_second, stock)
    writes, calls, cpu = (later - earlier for later, earlier in zip(after, before))
    text = (
        f"{count} limits of {rate}, {workers} workers: {starts / passed_s:.0f} starts/s, "
        f"{starts / passed_s / possible:.3f} of {possible:.0f}/s (without limits {stock:.0f}/s), "
        f"worst window {worst:+.2f}, {writes / passed_s / workers:.0f} writes/s and "
        f"{calls / passed_s / workers:.0f} calls/s per worker, {calls / max(1, starts):.2f} calls a start, "
        f"{100 * cpu / passed_s / workers:.0f} % of a core per worker"
    )
    return {"count": count, "rate": rate, "ratio": starts / passed_s / possible, "excess": worst, "text": text}


def releases(cluster: Cluster, count: int, begin: float, end: float, limit: Limit | None = None) -> tuple[int, float]:
    """How many releases of all tasks there were, and those of the worst window of one beyond its promise."""
    instants = [since(cluster.instants("release", name), begin, end) for name in names(count)]
    slack_s = limit.grace_s + 0.01 if limit else 0.0
    worst = max(excess(of_one, limit.interval_s, 1, slack_s) for of_one in instants) if limit else 0.0
    return sum(map(len, instants)), worst


def wait_until_held(cluster: Cluster, count: int) -> None:
    """Wait until one worker has received all that it will hold."""
    cluster.wait(lambda: cluster.stats()["w0"]["held"] == count, 60)


def at_rest(count: int = 1000, rate: str = "1/h", seconds: float = 10.0) -> dict[str, Any]:
    """A worker with a backlog behind each of its limits, and no slot for long; stock Celery with nothing to do."""
    shares = []
    for limit in (None, rate):
        with ExitStack() as stack:
            cluster, limiter = cluster_of(stack, count, limit, 3 if limit else 0, 1)
            if limit:
                wait_until_held(cluster, 2 * count)  # one of each has started, and no message is on its way
            time.sleep(4 * SETTLE_S)
            eye(cluster)
            before, begin = costs(cluster, limiter), time.monotonic()
            time.sleep(seconds)
            after, passed_s = costs(cluster, limiter), time.monotonic() - begin
            p99_ms = eye(cluster)["p99_ms"]
            writes, _, cpu = (later - earlier for later, earlier in zip(after, before))
            shares.append(cpu / passed_s)
    text = (
        f"{count} limits of {rate} at rest: loop p99 {p99_ms:.1f} ms late, {100 * shares[1]:.1f} % of a core "
        f"(stock Celery with nothing to do {100 * shares[0]:.1f} %), {writes / passed_s:.0f} writes/s"
    )
    return {"count": count, "p99_ms": p99_ms, "cpu": shares[1], "stock_cpu": shares[0], "text": text}
