"""Lanes that share a limit and have others of their own: real schedulers and scripts, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from celery_global_rate.limits.bucket import OWN, Bucket
from celery_global_rate.limits.limit import LONGEST_FILL_US, Limit
from celery_global_rate.limits.reservation import SlotsInHand
from celery_global_rate.scheduling.lane import Lane
from celery_global_rate.storage.scripts import (
    GIVE_BACK,
    GIVE_BACK_LANE,
    RESERVE,
    RESERVE_LANE,
    Script,
    giving_back,
    read_reservation,
    reserving,
)
from testbed.windows import excess, since, used

from ..conftest import Figures
from .simulation import Worker, World, fill

PREFIX = "lanes"
WARM_UP_S = 1.0
#: Requests of one lane begin with its number times this.
APART = 1_000_000

#: What each lane has for itself (0 for nothing), the limit that they share, and what that makes together.
CROSSINGS = {
    "own below shared": ([10, 0], 100, 100),
    "own above shared": ([100, 100], 30, 30),
    "one above, one without": ([45, 0], 20, 20),
    "two whose sum is below": ([30, 30], 100, 60),
    "three whose sum is about": ([33, 33, 33], 100, 99),
    "four whose sum is below": ([24, 24, 24, 24], 100, 96),
    "two of half": ([49, 49], 100, 98),
    "slow": ([7, 0], 20, 20),
}
#: Those that are not left to `make long`.
SHORT = [("own below shared", 1), ("own above shared", 1), ("four whose sum is below", 4)]
CELLS = [
    pytest.param(crossing, workers, marks=() if (crossing, workers) in SHORT else pytest.mark.long)
    for crossing in CROSSINGS
    for workers in (1, 4)
]


def limit_of(rate: float) -> Limit:
    limit = Limit.parse(rate)
    assert limit is not None
    return limit


def real_world(client: redis.Redis, seed: int) -> World:
    """A world whose buckets are kept by Redis, at the world's own time."""
    scripts = {it: client.register_script(it.source) for it in (RESERVE, GIVE_BACK, RESERVE_LANE, GIVE_BACK_LANE)}

    def run(script: Script, call: list[str | int], now_us: int) -> Any:
        count, *words = call
        return scripts[script]([str(key) for key in words[: int(count)]], [*words[int(count) :], now_us])

    def reserve(buckets: tuple[Bucket, ...], wanted: int, worker: str, now_us: int) -> SlotsInHand:
        script, call = reserving(PREFIX, buckets, wanted, worker, [""] * len(buckets), LONGEST_FILL_US, now_us)
        return read_reservation(script, run(script, call, now_us), len(buckets))

    def give_back(buckets: tuple[Bucket, ...], reservation: SlotsInHand, now_us: int) -> None:
        run(*giving_back(PREFIX, buckets, reservation), now_us)

    return World(reserve, give_back, seed)


def run(
    client: redis.Redis, own: Sequence[float], shared: float, workers: int, seconds: float
) -> tuple[list[list[float]], float, World]:
    """The releases of each lane, the widest uncertainty about the clock, and the world."""
    world = real_world(client, seed=workers)
    chance = random.Random(workers)
    cluster = [
        Worker(
            world,
            f"w{number}",
            8,
            run_time=lambda: chance.uniform(0.015, 0.025),
            latency=lambda: chance.uniform(0.0001, 0.0004),
            lateness=lambda: chance.uniform(0, 0.015) if chance.random() < 0.1 else chance.uniform(0, 0.0016),
        )
        for number in range(workers)
    ]
    backlog = int(2 * shared * (seconds + 2 * WARM_UP_S))
    for worker in cluster:
        for number, rate in enumerate(own):
            buckets = [Bucket(f"t{number}", OWN, limit_of(rate))] if rate else []
            buckets.append(Bucket("api", "smooth", limit_of(shared), is_crossed=True))
            fill(worker, Lane(f"t{number}", tuple(buckets)), range(number * APART, number * APART + backlog))
    world.run(WARM_UP_S + seconds + 0.2)
    releases: list[list[float]] = [[] for _ in own]
    for worker in cluster:
        for instant, request in worker.releases:
            releases[request // APART].append(instant)
    return [sorted(lane) for lane in releases], max(worker.clock.widest_s for worker in cluster), world


@pytest.mark.parametrize(("crossing", "workers"), CELLS)
def test_lanes_that_cross_use_what_their_limits_allow_together(
    redis_client: redis.Redis, figures: Figures, crossing: str, workers: int
) -> None:
    """Tasks of 15 to 25 ms, 8 processes each, a backlog in each lane of each worker; one wake in ten is 15 ms late.

    Used: from start to start. What is missing is slots that came too late, and those of the shared limit that lie
    between two of a lane's own: at least 0.985 with one worker, which waits for its own answer, and 0.99 with four.
    The windows have no tolerance: every limit is held to ``b + (w + D + R) / T``.
    """
    own, shared, together = CROSSINGS[crossing]
    seconds = 10.0
    releases, uncertainty_s, world = run(redis_client, own, shared, workers, seconds)
    end = WARM_UP_S + seconds
    everything = sorted(instant for lane in releases for instant in lane)
    share = used(everything, 1 / together, WARM_UP_S, end)
    counts = [len(since(lane, WARM_UP_S, end)) / seconds for lane in releases]
    worst: dict[str, float] = {}
    for name, rate, instants in [("shared", shared, everything), *zip(("own",) * len(own), own, releases)]:
        if rate:
            limit = limit_of(rate)
            found = excess(instants, limit.interval_s, limit.burst, limit.grace_s + uncertainty_s)
            worst[name] = max(worst.get(name, -9.0), found)
    figures(
        f"{crossing}, {workers} workers: {share:.4f} used, {counts} per second, worst windows {worst}, "
        f"{world.calls / len(everything):.2f} calls a start, {world.writes / (end * workers):.1f} writes/s"
    )

    assert all(excess <= 0 for excess in worst.values())
    least = 0.985 if workers == 1 else 0.99
    assert least <= share <= 1.005
