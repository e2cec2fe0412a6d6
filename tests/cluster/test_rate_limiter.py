"""A limiter outside and the workers on one bucket: together they have its rate, and each a share."""

from __future__ import annotations

import time

import pytest

from celery_global_rate import RateLimiter
from celery_global_rate.limits.limit import Limit
from testbed.callers import Callers, best_share
from testbed.cluster import Cluster
from testbed.meanwhile import wait
from testbed.server import Redis
from testbed.windows import excess, since, used

from ..conftest import Figures, Server

PREFIX = "global-rate:v1:lab"
LIMIT = Limit(10_000)
BUCKETS = {"api": {"rate": "100/s", "tasks": ["limited"]}}
#: Left out at either end of a run, in seconds.
EDGE_S = 1.0
#: The share of the slots that has to be used.
LEAST = 0.99


@pytest.mark.parametrize(
    ("own", "workers"),
    [("10/s", 2), *(pytest.param(None, workers, marks=pytest.mark.long) for workers in (1, 3))],
)
def test_both_saturate_one_bucket(
    empty_redis: Server, own_redis: Redis, figures: Figures, own: str | None, workers: int
) -> None:
    """Twenty threads of one process call as often as they may, and the workers have a backlog.

    Where the tasks have a limit of their own as well, they leave what they skip to the callers.
    """
    assert best_share(lambda: share_of(empty_redis, own_redis, figures, own, workers), LEAST) >= LEAST


def share_of(broker: Server, limiter: Redis, figures: Figures, own: str | None, workers: int) -> float:
    """The share of the slots that both use together."""
    for server in (broker, limiter):
        server.client().flushall()
    seconds = 5 + 2 * EDGE_S
    conf = {"global_rate_buckets": BUCKETS}
    with (
        Cluster(f"{broker.url}/0", limiter.url, own, conf=conf) as cluster,
        Callers(limiter.url, "100/s", "api", PREFIX) as callers,
    ):
        cluster.send("limited", 1500)
        cluster.start(workers)
        callers.start(seconds, 1, threads=20)
        begin = callers.go()
        calls = callers.finish()
        stats = cluster.stats()
        released = since(cluster.instants("release"), begin, begin + seconds)
    together = sorted(released + calls.released)
    begin, end = begin + EDGE_S, begin + seconds - EDGE_S
    share = used(together, LIMIT.interval_s, begin, end)
    uncertainty_s = max([it["widest_clock_uncertainty_ms"] / 1000 for it in stats.values()] + [calls.uncertainty_s])
    worst = excess(together, LIMIT.interval_s, 1, LIMIT.grace_s + uncertainty_s)
    of_workers, of_callers = (len(since(it, begin, end)) / (end - begin) for it in (released, calls.released))
    figures(
        f"100/s, tasks at {own}: {share:.4f} of the slots used, {of_workers:.1f}/s by {workers} workers and "
        f"{of_callers:.1f}/s by a process with 20 threads, worst window {worst:.2f} against the promise"
    )

    assert share <= 1.005
    assert worst <= 0
    if own:
        assert of_workers <= 10.5
    else:
        assert of_workers / workers == pytest.approx(of_callers, rel=0.25)
    return share


def test_operators_command_both_and_both_count(empty_redis: Server, own_redis: Redis) -> None:
    """`celery control rate_limit` of the bucket is in force outside the workers too, and each process is counted."""
    with Cluster(f"{empty_redis.url}/0", own_redis.url, conf={"global_rate_buckets": BUCKETS}) as cluster:
        cluster.start(1)
        limiter = RateLimiter(own_redis.url, "api", "100/s", prefix=PREFIX)
        limiter.acquire()
        wait(lambda: [it["workers"] for it in cluster.stats().values()] == [2], 5)
        cluster.set_rate("5/s", "api")
        begin = time.monotonic()
        for _ in range(4):
            limiter.acquire()
        took_s = time.monotonic() - begin

    assert 0.55 <= took_s <= 1.1
