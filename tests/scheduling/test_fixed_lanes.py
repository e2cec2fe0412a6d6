"""A bucket with a rate per second and a quota of fixed windows: real schedulers and scripts, in virtual time."""

from __future__ import annotations

import itertools
import random

import pytest
import redis

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.limit import Limit
from celery_global_rate.scheduling.lane import Lane
from testbed.windows import excess

from ..conftest import Figures
from .simulation import Worker, fill
from .test_crossing_lanes import limit_of, real_world

WINDOW_S, QUOTA = 10, 100


def run(client: redis.Redis, buckets: tuple[Bucket, ...], workers: int, run_s: float, windows: int) -> list[Worker]:
    """Workers with 32 processes in all and a backlog, from the middle of a window on; one wake in ten is 15 ms late."""
    world = real_world(client, seed=workers)
    chance = random.Random(workers)
    world.now = WINDOW_S / 2
    cluster = [
        Worker(
            world,
            f"w{number}",
            32 // workers,
            run_time=lambda: run_s * chance.uniform(0.8, 1.2),
            latency=lambda: chance.uniform(0.0001, 0.0004),
            lateness=lambda: chance.uniform(0, 0.015) if chance.random() < 0.1 else chance.uniform(0, 0.0016),
        )
        for number in range(workers)
    ]
    for worker in cluster:
        fill(worker, Lane("t", buckets), range((windows + 2) * QUOTA))
    world.run((windows + 1) * WINDOW_S - 0.001)
    return cluster


#: Those that are not left to `make long`: starts per second, workers, and how long a task runs, in seconds.
SHORT = [(20, 1, 0.02), (20, 4, 0.02), (0, 4, 1.0)]
CELLS = [
    pytest.param(*cell, marks=() if cell in SHORT else pytest.mark.long, id="{}/s-{}-{} s".format(*cell))
    for cell in itertools.product((20, 0), (1, 4), (0.001, 0.02, 1.0))
]


@pytest.mark.parametrize(("rate", "workers", "run_s"), CELLS)
def test_a_rate_and_a_quota_both_hold_and_the_quota_is_used_up(
    redis_client: redis.Redis, figures: Figures, rate: int, workers: int, run_s: float
) -> None:
    """100 in each window of 10 s, which 20/s allows in five; at least 0.99 of them, as an end may come late.

    A window has no tolerance: D and R are within it. The rate is held to ``b + (w + D + R) / T``.
    """
    fixed = Bucket("api", "fixed-10s", Limit.in_windows(f"{QUOTA}/{WINDOW_S}s"))
    buckets = (*([Bucket("api", "smooth", limit_of(rate))] if rate else []), fixed)
    windows = 3
    cluster = run(redis_client, buckets, workers, run_s, windows)
    releases = sorted(instant for worker in cluster for instant, _ in worker.releases)
    counts = [sum(begin <= instant / WINDOW_S < begin + 1 for instant in releases) for begin in range(windows + 1)]
    calls = cluster[0].world.calls / len(releases)
    figures(f"{rate}/s, {workers} workers, tasks of {run_s} s: {counts} in the windows, {calls:.2f} calls a start")

    assert max(counts) <= QUOTA
    assert min(counts[1:]) >= 0.99 * QUOTA
    if rate:
        limit, uncertainty_s = limit_of(rate), max(worker.clock.widest_s for worker in cluster)
        assert excess(releases, limit.interval_s, limit.burst, limit.grace_s + uncertainty_s) <= 0
