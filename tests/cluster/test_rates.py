"""Real workers under backlog: the rate is reached, and no window holds more than the promise allows.

Used slots are counted from start to start, so the edges of the watch cost nothing; what is left of the tolerance
covers a start that is late by J at either end. Long runs are in `make bench`.
"""

from __future__ import annotations

import time

import pytest

from celery_global_rate.storage.heartbeat import BEAT_S
from testbed.cluster import Cluster
from testbed.scenarios import Run, backlog, script_calls
from testbed.server import Redis
from testbed.stalls import stalls_of

from ..conftest import Figures, Server

#: Rates, workers and seconds to watch.
OTHER_RUNS = [("7/s", 4, 10), ("10/s", 1, 8), ("100/s", 1, 5), ("500/s", 4, 5)]


def watch(broker: str, limiter: Redis, rate: str, workers: int, seconds: float, **pool: str) -> Run:
    with Cluster(broker, limiter.url, rate) as cluster, stalls_of(cluster, limiter) as stalls:
        return backlog(cluster, limiter.client(), workers, seconds, stalls=stalls, **pool)


@pytest.mark.parametrize(
    ("rate", "workers", "seconds"),
    [("100/s", 4, 5), *(pytest.param(*run, marks=pytest.mark.long) for run in OTHER_RUNS)],
)
def test_a_limit_is_reached_and_never_exceeded(
    empty_redis: Server, own_redis: Redis, figures: Figures, rate: str, workers: int, seconds: float
) -> None:
    run = watch(empty_redis.url, own_redis, rate, workers, seconds)
    figures(str(run))

    assert run.release_excess <= 0
    assert run.start_excess <= 0
    assert 0.985 - run.stalled <= run.used <= 1.005
    assert run.calls_per_s <= 15
    assert run.jain >= 0.95


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools(empty_redis: Server, own_redis: Redis, figures: Figures, pool: str) -> None:
    run = watch(empty_redis.url, own_redis, "100/s", 2, 5, pool=pool)
    figures(f"{pool}: {run}")

    assert run.kept
    assert 0.985 - run.stalled <= run.used <= 1.005


@pytest.mark.slow
def test_rabbitmq(own_redis: Redis, rabbitmq: str, figures: Figures) -> None:
    run = watch(rabbitmq, own_redis, "100/s", 2, 5)
    figures(f"RabbitMQ: {run}")

    assert run.kept
    assert 0.985 - run.stalled <= run.used <= 1.005


@pytest.mark.long
def test_stock_celery_does_neither(empty_redis: Server, figures: Figures) -> None:
    """The same load without the extension: two workers hold 10/s each, and under backlog not even that."""
    with Cluster(f"{empty_redis.url}/0", rate="100/s", extension=False) as cluster:
        fast = backlog(cluster, empty_redis.client(), 2, 4)
    empty_redis.client().flushall()
    with Cluster(f"{empty_redis.url}/0", rate="1/s", extension=False) as cluster:
        slow = backlog(cluster, empty_redis.client(), 4, 4)
    figures(f"stock Celery: {fast}")
    figures(f"stock Celery: {slow}")

    assert fast.used < 0.5
    assert slow.release_excess >= 2


@pytest.mark.slow
def test_unlimited_tasks_cost_no_calls(empty_redis: Server, own_redis: Redis, figures: Figures) -> None:
    """With nothing but unlimited tasks, the limiter's Redis hears of no script but that the worker lives.

    It says so when it has connected, when it hears news, and 1, 3, 7 and 15 s later; from then on once in 10 s.
    """
    with Cluster(f"{empty_redis.url}/0", own_redis.url, "100/s") as cluster:
        begin = time.monotonic()
        cluster.start(1)
        cluster.send("free", 500)
        cluster.wait_for(500, 20, task="free")
        calls = script_calls(own_redis.client())
        took_s = time.monotonic() - begin
    figures(f"500 unlimited tasks in {took_s:.1f} s: {calls} calls of scripts")

    assert calls <= 2 + sum(at <= took_s for at in (1, 3, 7, 15)) + max(0, took_s - 15) // BEAT_S
