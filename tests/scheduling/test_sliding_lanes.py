"""A bucket with quotas of sliding windows: real schedulers and scripts, in virtual time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import redis

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.windows import Sliding
from celery_global_rate.scheduling.lane import Lane
from testbed.windows import excess

from ..conftest import Figures
from .simulation import Worker, fill
from .test_crossing_lanes import limit_of, real_world
from .test_fixed_lanes import run

#: What one bucket has beside each other, as an API may state it: 20 a second, but no more than 50 in any 15 s.
QUOTAS = ("100/10s", "50/15s")
WINDOWS = 6  # of ten seconds each, and a half one before


def sliding(rate: str) -> Bucket:
    limit = Limit.in_any(rate)
    assert limit.window
    return Bucket("api", limit.window.key, limit)


def fullest(releases: Sequence[float], length_s: float) -> int:
    """How many there are in the period of a length that has the most: each that ends with a release is counted."""
    return max(sum(end - length_s < instant <= end for instant in releases) for end in releases)


def in_the_last(releases: Sequence[float], end: float, limit: Limit) -> float:
    """How much of the slots of a quota is used, of as many times P + D up to the end as lie behind the first."""
    periods = int((end - releases[0]) / (limit.span_us / 1e6)) - 1
    return sum(end - periods * limit.span_us / 1e6 < it for it in releases) / (periods * limit.burst)


#: Those that are not left to `make long`: starts per second, quotas, workers, and how long a task runs, in seconds.
SHORT = [(20, QUOTAS, 1, 0.02), (20, QUOTAS[:1], 4, 0.02), (0, QUOTAS[1:], 4, 1.0)]
CELLS = [
    pytest.param(*cell, marks=() if cell in SHORT else pytest.mark.long, id="{}/s-{}-{}-{} s".format(*cell))
    for cell in itertools.product((20, 0), (QUOTAS, QUOTAS[:1], QUOTAS[1:]), (1, 4), (0.001, 0.02, 1.0))
]


@pytest.mark.parametrize(("rate", "quotas", "workers", "run_s"), CELLS)
def test_no_period_has_more_than_n_and_what_is_allowed_is_used(
    redis_client: redis.Redis, figures: Figures, rate: int, quotas: Sequence[str], workers: int, run_s: float
) -> None:
    """At most N in any P - R, as a worker knows the Redis clock to within R.

    A slot stays for P + D. So where N are wanted all the time, each P + D has N, whenever it begins: at least 0.99 of
    them here, since some slots are missed, given back and used a little later. The quota that allows least counts.
    """
    buckets = tuple(map(sliding, quotas))
    smooth = (Bucket("api", "smooth", limit_of(rate)),) if rate else ()
    cluster = run(redis_client, [(*smooth, *buckets)], workers, run_s, WINDOWS)
    releases = sorted(instant for worker in cluster for instant, _ in worker.releases)
    uncertainty_s = max(worker.clock.widest_s for worker in cluster)
    counts = [
        fullest(releases, it.limit.window.seconds - uncertainty_s)
        for it in buckets
        if isinstance(it.limit.window, Sliding)
    ]
    share = in_the_last(releases, cluster[0].world.now, buckets[-1].limit)
    calls = cluster[0].world.calls / len(releases)
    figures(f"{rate}/s, {quotas}, {workers} workers, {run_s} s: fullest {counts}, {share:.4f} used, {calls:.2f} calls")

    assert all(count <= bucket.limit.burst for count, bucket in zip(counts, buckets))
    assert share >= 0.99
    if rate:
        limit = limit_of(rate)
        assert excess(releases, limit.interval_s, limit.burst, limit.grace_s + uncertainty_s) <= 0


def test_a_redis_that_is_far_away_takes_no_slots(redis_client: redis.Redis, figures: Figures) -> None:
    """Answers take 35 ms each way, so R is 70 ms, more than D. It adds to the bound, and D ends no sooner."""
    world = real_world(redis_client, seed=1)
    worker = Worker(world, "w", 32, run_time=lambda: 0.02, latency=lambda: 0.035)
    bucket = sliding("20/5s")
    fill(worker, Lane("t", (Bucket("api", "smooth", limit_of(10)), bucket)), range(200))
    world.run(22)
    releases = [instant for instant, _ in worker.releases]
    share, most = in_the_last(releases, world.now, bucket.limit), fullest(releases, 5 - worker.clock.widest_s)
    figures(f"20/5s, answers after 70 ms: {share:.4f} used, {most} in the fullest period")

    assert worker.clock.widest_s > 0.06
    assert most <= 20
    assert share >= 0.99
