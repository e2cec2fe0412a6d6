"""A thousand limited tasks in one application."""

from __future__ import annotations

import time

import pytest

from benchmarks.cluster import Cluster

from .conftest import Figures, Server

COUNT = 1000


def started_in_s(server: Server, extension: bool) -> float:
    """From the start of the process until it takes tasks."""
    with Cluster(f"{server.url}/0", f"{server.url}/1", "100/m", extension=extension) as cluster:
        cluster.environment["GLOBAL_RATE_MANY"] = str(COUNT)
        begin = time.monotonic()
        cluster.start(1, options=["-I", "tests.apps.many"])
        return cluster.records("ready")[0].instant - begin


def test_the_start(empty_redis: Server, figures: Figures) -> None:
    """Less than a second longer than stock Celery, the better of two of each."""
    here, stock = (min(started_in_s(empty_redis, extension) for _ in range(2)) for extension in (True, False))
    figures(f"{COUNT} limited tasks: start-up {here:.2f} s, stock {stock:.2f} s")

    assert here - stock < 1


@pytest.mark.slow
def test_one_timer_and_a_quick_loop(empty_redis: Server, figures: Figures) -> None:
    """One message for each: a timer of 5 ms is late by less than 10 ms in 99 of 100 turns, and only one is ours."""
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", "100/m") as cluster:
        cluster.environment["GLOBAL_RATE_MANY"] = str(COUNT)
        for number in range(COUNT):
            cluster.send(f"many.task{number:03}", 3)
        cluster.start(1, options=["-I", "tests.apps.many"])
        eye(cluster)
        time.sleep(5)
        said = eye(cluster)
    figures(f"{COUNT} limited tasks at work: loop p99 {said['p99_ms']:.1f} ms late in {said['ticks']} turns")

    assert said["timers"] == 1
    assert said["ticks"] > 300
    assert said["p99_ms"] < 10


def eye(cluster: Cluster) -> dict[str, float]:
    """What the eye has seen since it was asked last."""
    replies = cluster.app.control.inspect(timeout=3, limit=1).stats() or {}
    seen: dict[str, float] = replies["w0@lab"]["eye"]
    return seen
