"""A bucket with a rate per second and a quota of fixed windows: real schedulers and scripts, in virtual time."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
import redis

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.limit import Limit
from celery_global_rate.scheduling.lane import Lane
from testbed.windows import excess

from ..conftest import Figures
from .simulation import Worker, fill
from .test_crossing_lanes import APART, limit_of, real_world

WINDOW_S, QUOTA = 10, 100
#: Held requests of a lane per window: none has more slots.
BACKLOG = 210


def smooth(name: str, rate: float) -> Bucket:
    """A limit that lanes share."""
    return Bucket(name, "smooth", limit_of(rate), is_crossed=True)


def fixed(name: str, quota: int) -> Bucket:
    """The same, of fixed windows."""
    return Bucket(name, "fixed-10s", Limit.in_windows(f"{quota}/{WINDOW_S}s"), is_crossed=True)


def per_window(releases: Iterable[float], windows: int) -> list[int]:
    """How many there are in each window, the half one before the others as well."""
    found = Counter(int(instant // WINDOW_S) for instant in releases)
    return [found[number] for number in range(windows + 1)]


def run(
    client: redis.Redis, lanes: Sequence[tuple[Bucket, ...]], workers: int, run_s: float, windows: int
) -> list[Worker]:
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
        for number, buckets in enumerate(lanes):
            fill(worker, Lane(f"t{number}", buckets), range(number * APART, number * APART + (windows + 1) * BACKLOG))
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
    quota = Bucket("api", "fixed-10s", Limit.in_windows(f"{QUOTA}/{WINDOW_S}s"))
    buckets = (*([Bucket("api", "smooth", limit_of(rate))] if rate else []), quota)
    windows = 3
    cluster = run(redis_client, [buckets], workers, run_s, windows)
    releases = sorted(instant for worker in cluster for instant, _ in worker.releases)
    counts = per_window(releases, windows)
    calls = cluster[0].world.calls / len(releases)
    figures(f"{rate}/s, {workers} workers, tasks of {run_s} s: {counts} in the windows, {calls:.2f} calls a start")

    assert max(counts) <= QUOTA
    assert min(counts[1:]) >= 0.99 * QUOTA
    if rate:
        limit, uncertainty_s = limit_of(rate), max(worker.clock.widest_s for worker in cluster)
        assert excess(releases, limit.interval_s, limit.burst, limit.grace_s + uncertainty_s) <= 0


#: The limits of each lane, and what they allow together in a window.
CROSSINGS: dict[str, tuple[list[tuple[Bucket, ...]], int]] = {
    "two share a quota": ([(smooth("a", 10), fixed("api", 100)), (smooth("b", 10), fixed("api", 100))], 100),
    "quotas under a rate": ([(smooth("api", 20), fixed("a", 60)), (smooth("api", 20), fixed("b", 60))], 120),
    "a quota, and none": ([(smooth("api", 20), fixed("a", 60)), (smooth("api", 20),)], 200),
    "two share a rate and a quota": (
        [(smooth("a", 15), smooth("api", 20), fixed("api", 100)), (smooth("api", 20), fixed("api", 100))],
        100,
    ),
    "quotas under a quota": ([(fixed("a", 70), fixed("api", 100)), (fixed("b", 70), fixed("api", 100))], 100),
}
CROSSED = [
    pytest.param(crossing, workers, marks=() if (crossing, workers) == ("quotas under a rate", 1) else pytest.mark.long)
    for crossing in CROSSINGS
    for workers in (1, 4)
]


@pytest.mark.parametrize(("crossing", "workers"), CROSSED)
def test_lanes_that_cross_use_what_their_windows_allow_together(
    redis_client: redis.Redis, figures: Figures, crossing: str, workers: int
) -> None:
    """At least 0.99 of it in each window: a start that comes late may be in the next one. None has more than N."""
    lanes, together = CROSSINGS[crossing]
    windows = 2
    cluster = run(redis_client, lanes, workers, 0.02, windows)
    releases = sorted(release for worker in cluster for release in worker.releases)
    counts = per_window((instant for instant, _ in releases), windows)
    figures(f"{crossing}, {workers} workers: {counts} in the windows")

    assert min(counts[1:]) >= 0.99 * together
    uncertainty_s = max(worker.clock.widest_s for worker in cluster)
    for bucket in {bucket for buckets in lanes for bucket in buckets}:
        own = [instant for instant, request in releases if bucket in lanes[request // APART]]
        limit = bucket.limit
        if limit.window:
            assert max(per_window(own, windows)) <= limit.burst
        else:
            assert excess(own, limit.interval_s, limit.burst, limit.grace_s + uncertainty_s) <= 0


@pytest.mark.parametrize(("answer_s", "is_in_time"), [(0.0002, True), (0.02, True), (0.08, False)])
def test_no_release_leaves_its_window_however_late_the_answer_is(
    redis_client: redis.Redis, figures: Figures, answer_s: float, is_in_time: bool
) -> None:
    """100 in each second, asked for at 0.93 s of one, by a worker that could start them all at once.

    An answer that takes 80 ms comes after the end of that second. The worker knows then that the Redis clock is between
    0.93 s and 1.01 s, and as it may be over, it uses none of these slots: they would come on top of the next hundred.
    """
    world = real_world(redis_client, seed=1)
    world.now = 0.93
    ways = itertools.cycle([0.0001, answer_s])
    worker = Worker(world, "w", 300, run_time=lambda: 0.02, latency=lambda: next(ways))
    fill(worker, Lane("t", (Bucket("api", "fixed-s", Limit.in_windows("100/s")),)), range(1000))
    world.run(2.9)
    instants = [instant for instant, _ in worker.releases]
    counts = [sum(begin <= instant < begin + 1 for instant in instants) for begin in range(3)]
    figures(f"answers after {answer_s * 1000:g} ms: {counts} starts in the seconds")

    assert bool(counts[0]) == is_in_time
    assert max(counts) <= 100
    assert counts[2] == 100
