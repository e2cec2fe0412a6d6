"""Many limits in one worker, in virtual time: what a turn looks at, how often it writes, and what each limit gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import groupby
from typing import Any

import pytest

from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.scheduling.lane import Lane
from celery_global_rate.scheduling.lists import Lists
from celery_global_rate.scheduling.scheduler import Scheduler
from testbed.windows import excess, jain

from ..conftest import Figures
from .simulation import Worker, World, fill, model_world

#: Requests of one lane begin with its number times this.
APART = 1_000_000
WARM_UP_S = 2.0


def loaded(
    count: int, rate: str, backlog: int, workers: int = 1, processes: int = 8, run_time_s: float = 0.001
) -> tuple[World, list[Worker], Limit]:
    """Workers with a backlog in each of many lanes; run times differ by 5 %, wake-ups are up to 2 ms late."""
    world, limit = model_world(1), Limit.parse(rate)
    assert limit is not None
    chance = world.random
    pool = [
        Worker(
            world,
            f"w{number}",
            processes,
            lambda: run_time_s * chance.uniform(0.95, 1.05),
            lateness=lambda: chance.uniform(0, 0.002),
        )
        for number in range(workers)
    ]
    for worker in pool:
        for number in range(count):
            fill(worker, Lane(f"t{number}", own(f"t{number}", limit)), range(number * APART, number * APART + backlog))
    return world, pool, limit


@pytest.mark.parametrize(
    ("count", "rate", "workers", "processes", "run_time_s", "seconds", "share"),
    [
        pytest.param(100, "10/s", 2, 8, 0.005, 2, 0.99, marks=pytest.mark.long),
        (100, "2/s", 2, 2, 0.001, 3, 0.99),
        (10, "100/s", 1, 8, 0.02, 3, 0.95),
        (10, "30/s", 1, 8, 0.02, 3, 0.98),
        (30, "1/s", 1, 8, 0.3, 10, 0.98),
        (10, "1/s", 1, 8, 1.0, 20, 0.95),
    ],
)
def test_each_limit_has_its_slots_by_few_writes(
    figures: Figures,
    count: int,
    rate: str,
    workers: int,
    processes: int,
    run_time_s: float,
    seconds: float,
    share: float,
) -> None:
    """The sum of the limits, or what the pools can do if that is less, in 60 writes a second per worker.

    Where the pool is what they wait for, a slot ahead waits for a process of another limit that ends in time: a part
    of the pool idles for the time of a call. No limit exceeds its promise; where all have work, none is left
    out: Jain 0.9.
    """
    backlog = 10 + int(1.5 * (WARM_UP_S + seconds) * Limit.parse(rate).per_second)  # type: ignore[union-attr]
    world, pool, limit = loaded(count, rate, backlog, workers, processes, run_time_s)
    world.run(WARM_UP_S)
    calls, writes = world.calls, world.writes
    world.run(WARM_UP_S + seconds)
    starts = sorted((request // APART, instant) for worker in pool for instant, request in worker.releases)
    possible = min(count * limit.per_second, processes * workers / run_time_s) * seconds
    watched = Counter(number for number, instant in starts if instant >= WARM_UP_S)
    started = sum(watched.values())
    writes_per_s = (world.writes - writes) / seconds / workers
    figures(
        f"{count} at {rate}, {processes} x {workers} of {run_time_s * 1000:g} ms: {started / possible:.3f}, "
        f"{(world.calls - calls) / started:.2f} calls a start, {writes_per_s:.0f} writes/s"
    )

    slack_s = limit.grace_s + max(worker.clock.widest_s for worker in pool)
    for _, of_one in groupby(starts, key=lambda start: start[0]):
        assert excess([instant for _, instant in of_one], limit.interval_s, limit.burst, slack_s) <= 0
    assert share <= started / possible <= 1.01 + processes * workers / possible
    assert writes_per_s <= 60
    assert jain(watched[number] for number in range(count)) >= 0.9


def test_a_turn_looks_only_at_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """One limit of 20/s beside 10 others of 1/h, and beside 1000: as many looks, but for one of each every 5 s.

    That is what the longest sleep of a lane is good for: 1000 in 5 s, and at most three looks for each such call,
    when it is asked, answered and put away.
    """

    original = vars(Lists)["to_look_at"].fget

    def looks(others: int) -> int:
        world, (worker,), _ = loaded(others, "1/h", 2)
        fill(worker, Lane("busy", own("busy", Limit.parse("20/s"))), range(-400, 0))
        world.run(8)  # the first slot of each is work for all
        looked: list[int] = []
        monkeypatch.setattr(Lists, "to_look_at", property(lambda self: note(looked, original(self))))
        world.run(13)
        monkeypatch.undo()
        assert sum(request < 0 and instant >= 8 for instant, request in worker.releases) >= 99
        return sum(looked)

    def note(looked: list[int], lanes: list[Lane]) -> list[Lane]:
        looked.append(len(lanes))
        return lanes

    few, many = looks(10), looks(1000)

    assert many <= few + 3 * 1000


def test_answers_that_arrive_together_call_for_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty limits have asked; the answers come while the loop is busy. Each has a turn, or all have one."""
    turns: list[int] = []
    original = Scheduler._turn

    def turn(scheduler: Scheduler) -> None:
        turns.append(1)
        original(scheduler)

    monkeypatch.setattr(Scheduler, "_turn", turn)

    def answered(context: Callable[[Scheduler], AbstractContextManager[None]]) -> tuple[int, int]:
        world, (worker,), _ = loaded(20, "1/h", 1, processes=32)
        worker.stop(0.01)
        world.run(0.005)
        replies, worker.inbox = worker.inbox, []
        turns.clear()
        with context(worker.scheduler):
            for reply in replies:
                reply()
        return len(worker.scheduler._lists.in_hand) + len(worker.releases), len(turns)

    (taken, each), (taken_together, one) = answered(lambda it: nullcontext()), answered(Scheduler.in_one_turn)
    assert taken == taken_together >= 5
    assert one <= each - taken + 1


def test_a_request_more_is_no_reason_for_a_turn_if_its_limit_waits_for_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full pool, ten limits of 100/s that want slots: a hundred requests more, and no turn for any of them."""
    world, (worker,), _ = loaded(10, "100/s", 50, processes=1, run_time_s=10)
    world.run(1)
    turns: list[int] = []
    monkeypatch.setattr(Scheduler, "_turn", lambda self: turns.append(1))
    lanes = list(worker.scheduler.busy)
    held = worker.scheduler.held
    for lane in lanes:
        for number in range(10):
            worker.scheduler.hold(lane, number)

    assert (len(lanes), turns) == (10, [])
    assert worker.scheduler.held == held + 100


def test_a_slot_in_hand_keeps_its_process_from_tasks_of_other_limits() -> None:
    """One process, tasks of 0.3 s, a slot a second: what comes 50 ms before it, with another limit, waits for it.

    Both fit into each second: 20 of each start, and no slot is missed.
    """
    world, (worker,), _ = loaded(1, "1/s", 100, 1, 1, 0.3)
    other = Lane("other", own("other", Limit.parse("1000/s")))
    for second in range(1, 21):
        world.at(second - 0.05, partial(worker.scheduler.hold, other, -second))
    world.run(20.95)

    of_other = sum(request < 0 for _, request in worker.releases)
    assert (len(worker.releases) - of_other, of_other) == (21, 20)
    assert worker.scheduler.missed == 0


class Laborious(Worker):
    """A worker whose own loop takes 2.5 ms for each task, of which run times say nothing."""

    def _end(self, request: Any, run_time: float) -> None:
        super()._end(request, 0.0)


def test_limits_that_began_together_do_not_stay_together() -> None:
    """100 limits of 2/s that begin at once, and a worker that can do 400 a second: all have their slots.

    Asked for together, 100 slots are due at the same instant each half second, and 18 of them can be used before
    their 45 ms are over. It needs a few seconds to learn that.
    """
    world, limit = model_world(1), Limit.parse("2/s")
    assert limit is not None
    worker = Laborious(world, "w", 1, lambda: 0.0025 * world.random.uniform(0.95, 1.05))
    for number in range(100):
        fill(worker, Lane(f"t{number}", own(f"t{number}", limit)), range(number * APART, number * APART + 40))
    world.run(6)
    missed = worker.scheduler.missed
    world.run(12)
    started = sum(instant >= 6 for instant, _ in worker.releases)

    assert started >= 0.97 * 100 * limit.per_second * 6
    assert worker.scheduler.missed - missed <= 0.03 * started
