"""The two acts of the demo, and what comes of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import redis
from kombu.exceptions import KombuError
from rich.console import Console

from testbed.cluster import Cluster
from testbed.records import Tail
from testbed.server import any_redis

from .act import ACT_S, PHASE_S, RATES, Act, Phase
from .picture import Picture, results
from .stop import Stop

WORKERS = ("w0", "w1", "w2", "w3")
TASKS = 3500
LEAST_USED = 0.95
PICTURE_S = 0.25

INTRODUCTION = f"""\
Four Celery workers of two processes; {TASKS} tasks with rate_limit='{RATES[0]}/s' wait.
First stock Celery, where each worker has that limit for itself; then with
celery-global-rate, where all share one. After {PHASE_S:.0f} s Celery's ordinary command
app.control.rate_limit('limited', '{RATES[1]}/s') changes it in running workers.
Yellow is the limit, red is more than promised. Ctrl-C ends everything.
"""


class DemoCluster(Cluster):
    """A cluster whose waiting can be stopped."""

    check: Callable[[], None]

    def wait(self, condition: Callable[[], bool], timeout: float, failure: str = "it did not happen") -> None:
        """Poll a condition until a deadline, or until the demo is to end."""

        def unless_stopped() -> bool:
            self.check()
            return condition()

        super().wait(unless_stopped, timeout, failure)


def play(act: Act, server: redis.Redis, url: str, picture: Picture, stop: Stop) -> None:
    """Run an act from its first message to its last record."""
    # Keys of our own, in case that the Redis is somebody's.
    prefix = f"global-rate-demo-{os.getpid()}-{'with' if act.extension else 'stock'}:"
    conf: dict[str, Any] = {"broker_transport_options": {"global_keyprefix": prefix}, "global_rate_key_prefix": prefix}
    try:
        cluster = DemoCluster(url, rate=f"{RATES[0]}/s", extension=act.extension, conf=conf)
        with cluster:
            cluster.check = stop.check
            _load(act, cluster, picture, stop)
            _watch(act, cluster, server, picture, stop)
    finally:
        for key in list(server.scan_iter(f"*{prefix}*")):
            server.delete(key)


def _load(act: Act, cluster: DemoCluster, picture: Picture, stop: Stop) -> None:
    """Send the tasks, then start the workers."""
    act.status = f"sending {TASKS} tasks"
    picture.show(act)
    for _ in range(TASKS // 100):
        stop.check()
        cluster.send("limited", 100)
    act.status = "starting four workers"
    picture.show(act)
    cluster.start(len(WORKERS))


def _watch(act: Act, cluster: DemoCluster, server: redis.Redis, picture: Picture, stop: Stop) -> None:
    """Show the act while it runs, and change the limit in its middle."""
    tail = Tail(cluster.directory / "records")
    act.status = "running"

    def show_until(end: float) -> None:
        while (left_s := end - time.monotonic()) > 0:
            stop.check()
            act.take(tail.lines(), time.monotonic())
            picture.show(act)
            time.sleep(min(left_s, PICTURE_S))
        act.take(tail.lines(), time.monotonic())

    cluster.wait_for(1, 10)
    act.phases.append(Phase(RATES[0], time.monotonic()))
    act.take(tail.lines(), time.monotonic())
    assert act.began is not None
    for index, rate in enumerate(RATES):
        phase = act.phases[-1]
        calls = script_calls(server)
        show_until(act.began + (index + 1) * PHASE_S)
        phase.calls, phase.end = script_calls(server) - calls, time.monotonic()
        if rate is not RATES[-1]:
            act.phases.append(Phase(RATES[index + 1], phase.end))
            cluster.app.control.rate_limit("limited", f"{RATES[index + 1]}/s")
        act.uncertainty_s = max(act.uncertainty_s, uncertainty_s(cluster))
    act.take(tail.lines(), time.monotonic())
    act.seen = act.began + ACT_S
    act.status = "done"
    picture.show(act)


def script_calls(server: redis.Redis) -> int:
    """Scripts that Redis has run so far. Kombu runs a few itself when a worker starts, hardly any later."""
    commands = server.info("commandstats")
    return sum(commands.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def uncertainty_s(cluster: Cluster) -> float:
    """R: the largest that a worker reports, by `celery inspect stats`."""
    reported = (stats.get("clock_uncertainty_ms") for stats in cluster.stats().values())
    return max((milliseconds / 1000 for milliseconds in reported if milliseconds), default=0.0)


def verdict(act: Act) -> str | None:
    """What the extension failed to do, or None."""
    for phase in act.phases:
        result = act.result(phase)
        if result.excess > 0:
            return f"The promise was broken: at {phase.rate}/s the worst window held {result.excess:.1f} too many."
        if result.used < LEAST_USED:
            return f"Slots were wasted: at {phase.rate}/s only {result.used:.1%} were used, not {LEAST_USED:.0%}."
    return None


def notes(act: Act) -> str:
    """What the table does not say."""
    grace_ms, uncertainty_ms = act.phases[0].limit.grace_s * 1000, act.uncertainty_s * 1000
    return f"""\
The promise: in any window of w seconds at most 1 + (w + D + R) x rate releases,
D = {grace_ms:.0f} ms, R = {uncertainty_ms:.2f} ms as measured (for stock: 0), no tolerance.
Stock Celery goes over it, since each worker has the limit for itself, and then
far below, since its timers starve while tasks wait (celery #3166, #6845).
"""


def run(stop: Stop) -> int:
    """Play the demo and return its exit status.

    Raises:
        StoppedError: it was asked to end, and has left nothing behind.
    """
    console = Console(highlight=False)
    try:
        return _run(console, stop)
    except (RuntimeError, TimeoutError, KombuError, redis.RedisError) as exc:
        console.print(f"The demo could not run: {exc}", markup=False, soft_wrap=True)
        return 2


def _run(console: Console, stop: Stop) -> int:
    console.print(INTRODUCTION, markup=False)
    extended = Act("global-rate", True)
    acts = Act("stock Celery", False), extended
    with any_redis() as owner:
        url = f"{owner.url}/0"
        server = redis.Redis.from_url(url, socket_connect_timeout=3)
        server.ping()
        with Picture(console, acts, WORKERS) as picture:
            for act in acts:
                play(act, server, url, picture, stop)
    console.print(results(acts))
    console.print(notes(extended))
    failure = verdict(extended)
    console.print(failure or "The promise was kept in every window, and the slots were used.", soft_wrap=True)
    return 1 if failure else 0
