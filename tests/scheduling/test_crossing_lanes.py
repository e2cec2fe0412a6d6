"""Lanes that share a limit and have others of their own: real schedulers and scripts, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from celery_global_rate.limits.bucket import OWN, Bucket
from celery_global_rate.limits.costs import Costs
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


def limit_of(rate: float, burst: int = 1) -> Limit:
    limit = Limit.parse(rate, burst)
    assert limit is not None
    return limit


def of_all(name: str, limit: Limit, window: str = "smooth") -> Bucket:
    """A bucket that several lanes pass."""
    return Bucket(name, window, limit, is_crossed=True)


def real_world(client: redis.Redis, seed: int) -> World:
    """A world whose buckets are kept by Redis, at the world's own time."""
    scripts = {it: client.register_script(it.source) for it in (RESERVE, GIVE_BACK, RESERVE_LANE, GIVE_BACK_LANE)}

    def run(script: Script, call: list[str | int], now_us: int) -> Any:
        count, *words = call
        return scripts[script]([str(key) for key in words[: int(count)]], [*words[int(count) :], now_us])

    def reserve(
        buckets: tuple[Bucket, ...], wanted: int, worker: str, now_us: int, costs: Costs | None = None
    ) -> SlotsInHand:
        script, call = reserving(PREFIX, buckets, wanted, worker, [""] * len(buckets), LONGEST_FILL_US, now_us, costs)
        return read_reservation(script, run(script, call, now_us), len(buckets))

    def give_back(buckets: tuple[Bucket, ...], reservation: SlotsInHand, now_us: int) -> None:
        run(*giving_back(PREFIX, buckets, reservation), now_us)

    return World(reserve, give_back, seed)


def run(
    client: redis.Redis, lanes: Sequence[tuple[Bucket, ...]], workers: int, seconds: float
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
    for worker in cluster:
        for number, buckets in enumerate(lanes):
            backlog = int(2 * min(bucket.limit.per_second for bucket in buckets) * (seconds + 2 * WARM_UP_S))
            fill(worker, Lane(f"t{number}", buckets), range(number * APART, number * APART + backlog))
    world.run(WARM_UP_S + seconds + 0.2)
    releases: list[list[float]] = [[] for _ in lanes]
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
    api = of_all("api", limit_of(shared))
    lanes = [(Bucket(f"t{number}", OWN, limit_of(rate)), api) if rate else (api,) for number, rate in enumerate(own)]
    releases, uncertainty_s, world = run(redis_client, lanes, workers, seconds)
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


@pytest.mark.parametrize(
    "workers", [4, pytest.param(1, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)]
)
def test_lanes_that_share_several_limits(redis_client: redis.Redis, figures: Figures, workers: int) -> None:
    """Seven lanes of one to four limits, in which a limit of 45/s is passed by all but one, and always wanted.

    A lane that a slower limit has stopped must not take the turn of others at this one. At least 0.985 of its slots are
    used, with one wake in ten that is 15 ms late; and no window of any limit holds more than ``b + (w + D + R) / T``.
    """
    api, push = of_all("api", limit_of(45)), Bucket("push", OWN, limit_of(12))
    one, two = (of_all("tenant", limit_of(6), f"smooth:{value}") for value in "ab")
    mail = of_all("mail", limit_of(25)), of_all("mail", limit_of(10, burst=4), "smooth2")
    lanes = [(api,), (push, api), (push, api, *mail), (api, one), (api, one, *mail), (api, two), mail]
    seconds = 10.0
    releases, uncertainty_s, _ = run(redis_client, lanes, workers, seconds)
    of: dict[Bucket, list[float]] = {
        bucket: sorted(instant for lane, instants in zip(lanes, releases) if bucket in lane for instant in instants)
        for bucket in (api, push, one, two, *mail)
    }
    share = used(of[api], api.limit.interval_s, WARM_UP_S, WARM_UP_S + seconds)
    worst = {
        f"{bucket.name} {bucket.window}": excess(
            instants, bucket.limit.interval_s, bucket.limit.burst, bucket.limit.grace_s + uncertainty_s
        )
        for bucket, instants in of.items()
    }
    counts = [len(since(lane, WARM_UP_S, WARM_UP_S + seconds)) / seconds for lane in releases]
    figures(f"{workers} workers: {share:.4f} of 45/s used, {counts} per second, worst windows {worst}")

    assert all(excess <= 0 for excess in worst.values())
    assert 0.985 <= share <= 1.005
    assert min(counts) > 0
