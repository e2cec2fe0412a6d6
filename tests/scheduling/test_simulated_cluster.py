"""Clusters in virtual time on the real script: real schedulers, simulated pools and network, and Redis' own maths."""

from __future__ import annotations

import random
from functools import partial

import pytest

from celery_global_rate.limits.bucket import Bucket, own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.reservation import Reservation, SlotsInHand
from celery_global_rate.limits.timing import HORIZON_S, LONGEST_SLEEP_S
from celery_global_rate.scheduling.lane import Lane
from testbed.windows import excess, jain, used

from ..conftest import Figures
from ..storage import replay
from .simulation import Worker, World, fill

WARM_UP_S = 0.5
TOP_UP_S = 0.02


def real_world(bucket: replay.Bucket, seed: int) -> World:
    """A world whose one bucket is kept by Redis, at the world's own time."""

    def reserve(buckets: tuple[Bucket, ...], wanted: int, worker: str, now_us: int) -> SlotsInHand:
        return bucket.reserve(now_us, buckets[0].limit, wanted, worker)

    def give_back(buckets: tuple[Bucket, ...], reservation: SlotsInHand, now_us: int) -> None:
        assert isinstance(reservation, Reservation)
        bucket.give_back(now_us, reservation)

    return World(reserve, give_back, seed)


@pytest.mark.parametrize(
    ("count", "rate", "processes", "seconds"),
    [(10, "1000/s", 2, 4), (100, "1000/s", 2, 4), (10, "5000/s", 8, 2), (100, "5000/s", 8, 2)],
)
def test_a_cluster_keeps_its_limit_and_uses_it(
    bucket: replay.Bucket, figures: Figures, count: int, rate: str, processes: int, seconds: float
) -> None:
    """Tasks of 0.7 ms, wake-ups up to 1.6 ms late, 0.1 to 0.4 ms each way, and nobody without work.

    Used: from start to start, so the edges of the watch cost nothing, and what is left of the slots is missed or
    given to nobody. 1.005 because starts are up to a grace late: at the end of the watch they may be later than at
    its begin by 25 ms in 2 s, and a backlog of them is not kept for long. The worst window has no tolerance.

    Shares are counted over the watch. Each worker has at least 20 starts there; Jain 0.95 is a spread of 23 %.
    """
    limit = Limit.parse(rate)
    assert limit is not None
    world = real_world(bucket, seed=count)
    chance = random.Random(count)
    workers = [
        Worker(
            world,
            f"w{number}",
            processes,
            run_time=lambda: 0.0007,
            latency=lambda: chance.uniform(0.0001, 0.0004),
            lateness=lambda: chance.uniform(0, 0.0016),
        )
        for number in range(count)
    ]
    backlog = max(100, int(2 * limit.per_second * 0.1 / count))
    dry = 0

    def top_up(worker: Worker, held: Lane, first: int) -> None:
        nonlocal dry
        dry += first > 0 and not held.held
        missing = backlog - len(held.held)
        fill(worker, held, range(first, first + missing))
        world.after(TOP_UP_S, partial(worker.run_soon, partial(top_up, worker, held, first + missing)))

    for worker in workers:
        world.at(chance.uniform(0, TOP_UP_S), partial(top_up, worker, Lane(replay.NAME, own(replay.NAME, limit)), 0))
    end = WARM_UP_S + seconds
    world.run(end + 0.1)

    instants = sorted(instant for worker in workers for instant, _ in worker.releases)
    shares = [sum(WARM_UP_S <= instant < end for instant, _ in worker.releases) for worker in workers]
    share_used = used(instants, limit.interval_s, WARM_UP_S, end)
    slack_s = limit.grace_s + max(worker.clock.widest_s for worker in workers)
    worst = excess(instants, limit.interval_s, limit.burst, slack_s)
    missed = sum(worker.scheduler.missed for worker in workers)
    figures(
        f"{sum(shares) / seconds:.0f} starts/s, used {share_used:.4f}, worst window {worst:+.1f}, "
        f"{world.calls / len(instants):.3f} calls per start, Jain {jain(shares):.4f}, missed {missed}"
    )

    assert dry == 0
    assert 0.995 <= share_used <= 1.005
    assert worst <= 0
    assert jain(shares) >= 0.95


@pytest.mark.parametrize("rate", ["100/s", "2/s"])
@pytest.mark.parametrize("step_s", [3600, -3600])
def test_the_redis_clock_steps_by_an_hour(bucket: replay.Bucket, figures: Figures, rate: str, step_s: int) -> None:
    """Four workers under backlog, and Redis' clock an hour later or earlier all at once.

    Forward it looks as if an hour had passed: a full bucket, and what was reserved before the step is missed, so at
    most ``b + H/T`` more. Back, S keeps its lead, so the next slot is at most T + H away; a worker finds that out when
    it asks next, after 5 s at the latest where it had gone to sleep for a slot that is an hour away by then.
    """
    limit = Limit.parse(rate)
    assert limit is not None
    world = real_world(bucket, seed=1)
    workers = [Worker(world, f"w{number}") for number in range(4)]
    for worker in workers:
        fill(worker, Lane(replay.NAME, own(replay.NAME, limit)), range(2000))

    def step() -> None:
        world.clock_step_us = step_s * 1_000_000

    world.at(10.0, step)
    world.run(30.0)
    instants = sorted(instant for worker in workers for instant, _ in worker.releases)
    gap_s = max(later - earlier for earlier, later in zip(instants, instants[1:]) if later > 10)
    slack_s = limit.grace_s + max(worker.clock.widest_s for worker in workers)
    worst = excess(instants, limit.interval_s, limit.burst, slack_s)
    figures(f"{step_s:+} s at {rate}: worst window {worst:+.2f}, the longest gap {gap_s:.3f} s")

    assert worst <= (limit.burst + HORIZON_S / limit.interval_s if step_s > 0 else 0)
    assert gap_s <= max(LONGEST_SLEEP_S, limit.interval_s + HORIZON_S) + limit.grace_s
    assert used(instants, limit.interval_s, 16.0, 29.0) >= 0.98


@pytest.mark.parametrize("rate", ["100/s", "2/s"])
def test_a_virtual_machine_is_paused(bucket: replay.Bucket, figures: Figures, rate: str) -> None:
    """One of four workers stands still for 5 s, twenty times, and its clock with it.

    It believes that no time has passed, and may use the slots that it had in hand, beside those that the others have
    at that moment: ``b + H/T`` more, until the next answer from Redis has the time. One that is stopped and has a
    clock that goes on uses none.
    """
    limit = Limit.parse(rate)
    assert limit is not None
    worsts = []
    for pause in (Worker.pause, Worker.stop):
        world = real_world(bucket, seed=1)
        bucket.client.flushdb()
        workers = [Worker(world, f"w{number}") for number in range(4)]
        for worker in workers:
            fill(worker, Lane(replay.NAME, own(replay.NAME, limit)), range(20_000))
        for index in range(20):
            world.at(10 * index + world.random.uniform(1, 5), partial(pause, workers[0], 5.0))
        world.run(210.0)
        instants = sorted(instant for worker in workers for instant, _ in worker.releases)
        slack_s = limit.grace_s + max(worker.clock.widest_s for worker in workers)
        worsts.append(excess(instants, limit.interval_s, limit.burst, slack_s))
    figures(
        f"20 pauses of 5 s at {rate}: worst window {worsts[0]:+.2f}; stopped, with the clock going on: {worsts[1]:+.2f}"
    )

    assert worsts[0] <= limit.burst + HORIZON_S / limit.interval_s
    assert worsts[1] <= 0
