"""Errors of ours: planted at each call that leaves the scheduler, once and for a while, in virtual time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from celery_global_rate.limits.bucket import Bucket, own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.scheduling.chores import Chores
from celery_global_rate.scheduling.faults import FIRST_PAUSE_S, LOGGED_AGAIN_S, LONGEST_PAUSE_S, Faults, Retry
from celery_global_rate.scheduling.lane import Lane
from testbed.windows import excess, since, used

from .simulation import Worker, World, fill, model_world

#: Places that know a lane, and those that concern all of them.
OF_A_BUCKET = ["reserve", "give_back", "reply", "is_gone", "start"]
OF_ALL = ["free", "line_up", "wake", "cover", "monotonic", "clock"]
#: How long an error lasts that does, in seconds.
LASTS_S = 6.0
#: A load in two lanes; errors are for the first.
BROKEN, SOUND = "broken", "sound"


class PlantedError(Exception):
    """The error."""


class Faulty(Worker):
    """A worker whose calls out of the scheduler can be made to fail; its loop tries again, as the engine's does."""

    place = ""
    left = 0.0

    def fail(self, place: str, name: str | None = None) -> None:
        if place == self.place and self.left > 0 and name in (None, BROKEN):
            self.left -= 1
            raise PlantedError(place)

    def _wake(self, at: float) -> None:
        self.fail("wake")
        super()._wake(at)

    def _cover(self, held: int) -> None:
        self.fail("cover")
        super()._cover(held)

    def monotonic(self) -> float:
        self.fail("monotonic")
        return super().monotonic()

    @property
    def free(self) -> int:
        self.fail("free")
        return super().free

    def line_up(self, places: int, wanted: int) -> None:
        self.fail("line_up")
        super().line_up(places, wanted)

    def is_gone(self, request: Any) -> bool:
        self.fail("is_gone", str(request[0]))
        return super().is_gone(request)

    def start(self, request: Any, failed: Callable[[Exception], None]) -> None:
        self.fail("start", request[0])
        super().start(request, failed)

    def reserve(
        self,
        name: str,
        buckets: tuple[Bucket, ...],
        wanted: int,
        reply: Callable[..., None],
        costs: Any = None,
        within_s: float = math.inf,
    ) -> None:
        self.fail("reserve", name)

        def answer(reservation: Any) -> None:
            if self.place == "reply" and self.left > 0 and name == BROKEN:
                self.left -= 1
                reservation = "no reservation at all"
            reply(reservation)

        super().reserve(name, buckets, wanted, answer, costs)

    def give_back(self, buckets: tuple[Bucket, ...], reservation: Any) -> None:
        self.fail("give_back", buckets[0].name)
        super().give_back(buckets, reservation)

    def run_soon(self, event: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                event()
            except PlantedError as exc:
                faults, self.place, place = self.faults, "", self.place
                faults.note("the loop's turn", exc)
                self.place = place
                self.world.after(FIRST_PAUSE_S, partial(self.run_soon, self.scheduler.pump))

        super().run_soon(guarded)


def loaded(place: str) -> tuple[World, Faulty, Limit]:
    """A worker with a backlog in both lanes, 50/s each, and tasks of 20 ms with 5 % jitter on 8 processes."""
    world = model_world()
    worker = Faulty(world, "w", 8, lambda: 0.02 * world.random.uniform(0.95, 1.05))
    limit = Limit.parse("50/s")
    assert limit is not None
    for name in (BROKEN, SOUND):
        fill(worker, Lane(name, own(name, limit)), [(name, number) for number in range(2000)])  # type: ignore[arg-type]
    worker.place = place
    if place == "clock":
        reached = worker.clock.reached

        def fail_or_reach(redis_us: float) -> float:
            worker.fail("clock")
            return reached(redis_us)

        worker.clock.reached = fail_or_reach  # type: ignore[method-assign]
    return world, worker, limit


def of(worker: Faulty, name: str) -> list[float]:
    """The instants of the releases of a lane."""
    return [instant for instant, request in worker.releases if request[0] == name]


@pytest.mark.parametrize("lasts", [False, True], ids=["once", "for a while"])
@pytest.mark.parametrize("place", [*OF_A_BUCKET, *OF_ALL])
def test_an_error_stays_where_it_happened(place: str, lasts: bool, caplog: pytest.LogCaptureFixture) -> None:
    """At 2 s an error begins, once or for 6 s; both lanes have 50/s before, and 1 s after its end again.

    The other lane goes on meanwhile where the place knows the lane: 0.99 of its slots, from start to start. One
    second: the longest pause, 0.8 s, and a call for slots. The log: one traceback, whatever it meets.
    """
    world, worker, limit = loaded(place)
    calls = 4 if place == "give_back" else 0
    for number in range(calls):  # what gives slots back: the limit changes a little, and changes again
        other = limit if number % 2 else Limit.parse("51/s")
        world.at(2.005 + number, partial(worker.run_soon, partial(reconfigure, worker, other)))
    world.at(2, partial(setattr, worker, "left", float("inf") if lasts else 1))
    world.at(2 + LASTS_S, partial(setattr, worker, "left", 0))
    with caplog.at_level(logging.WARNING):
        world.run(12)

    end = 2 + (LASTS_S if lasts else 0)
    assert caplog.records, "nothing was planted"
    assert [record.exc_info is not None for record in caplog.records] == [True]
    for name in (BROKEN, SOUND):
        assert used(of(worker, name), limit.interval_s, 1, 1.9) >= 0.97
        assert used(of(worker, name), limit.interval_s, end + 1, 11.9) >= 0.99
    if place in OF_A_BUCKET:
        assert used(of(worker, SOUND), limit.interval_s, 2, 11.9) >= 0.99
    slack_s = limit.grace_s + worker.clock.widest_s
    assert excess(sorted(of(worker, SOUND)), limit.interval_s, 1, slack_s) <= 0


def reconfigure(worker: Faulty, limit: Limit | None) -> None:
    """Change the limit of the first lane, with slots in hand."""
    (broken,) = (lane for lane in worker.scheduler.busy if lane.name == BROKEN)
    worker.scheduler.configure(broken, own(BROKEN, limit))


def test_a_request_that_cannot_be_started_lets_the_others_pass_and_comes_again() -> None:
    """Three of ten fail for 3 s: the other seven start at their rate of 10/s, then the three, each of them once."""
    world = model_world()
    worker = Worker(world, "w", 4)
    start = worker.start

    def fail_or_start(request: Any, failed: Callable[[Exception], None]) -> None:
        if request in (0, 1, 2) and world.now < 3:
            raise PlantedError
        start(request, failed)

    worker.start = fail_or_start  # type: ignore[method-assign]
    lane = Lane("t", own("t", Limit.parse("10/s")))
    fill(worker, lane, range(10))
    world.run(6)

    order = [request for _, request in worker.releases]
    assert order[:7] == [3, 4, 5, 6, 7, 8, 9]
    assert sorted(order[7:]) == [0, 1, 2]
    assert 3 <= worker.releases[7][0] <= 3 + LONGEST_PAUSE_S + 0.3
    assert lane.is_idle
    assert not lane._retries


def test_a_request_that_fails_on_its_way_to_the_pool_comes_again() -> None:
    """As a release does that has waited for a greenlet: 0.2 s after it went there, when nothing else is held."""
    world = model_world()
    worker = Worker(world, "w", 4)
    start, released = worker.start, []

    def start_or_fail_later(request: Any, failed: Callable[[Exception], None]) -> None:
        released.append(request)
        if released.count(1) == 1 == request:
            world.after(0.2, partial(failed, PlantedError()))
        else:
            start(request, failed)

    worker.start = start_or_fail_later  # type: ignore[method-assign]
    lane = Lane("t", own("t", Limit.parse("10/s")))
    fill(worker, lane, range(2))
    world.run(3)

    assert released == [0, 1, 1]
    assert [request for _, request in worker.releases] == [0, 1]
    assert worker.releases[1][0] <= 0.1 + 0.2 + 2 * FIRST_PAUSE_S + 0.2
    assert worker.scheduler.missed == 1
    assert lane.is_idle


def test_what_is_put_off_is_held_and_goes_with_the_others() -> None:
    """It counts, is listed, needs a prefetch slot, and is forgotten at a clear."""
    world = model_world()
    worker = Faulty(world, "w", 4)
    worker.is_gone = lambda request: (_ for _ in ()).throw(PlantedError)  # type: ignore[method-assign]
    lane = Lane("t", own("t", Limit.parse("10/s")))
    fill(worker, lane, range(5))
    world.run(0.5)

    assert worker.scheduler.held == 5
    assert sorted(worker.scheduler.requests) == list(range(5))
    assert worker.covered == 5
    worker.scheduler.clear()
    assert (worker.scheduler.held, worker.scheduler.requests, worker.covered) == (0, [], 0)
    world.run(9)
    assert not worker.releases


def test_a_pause_doubles_up_to_the_longest_and_is_forgotten_after_a_quiet_time() -> None:
    retry, now, pauses = Retry(), 100.0, []
    for _ in range(7):
        retry.failed(now)
        pauses.append(round(retry.at - now, 3))
        now = retry.at
    retry.failed(now + 10)

    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 0.8, 0.8]
    assert retry.at == now + 10 + FIRST_PAUSE_S


def test_an_error_is_logged_with_its_traceback_once_and_then_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Twenty a second for two minutes and a half: a traceback, two lines, and what they count is all there was."""
    now = [0.0]
    faults = Faults(monotonic=lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for number in range(20 * 150):
            now[0] = number / 20
            assert not faults.guard("a place", fail)

    first, *later = caplog.records
    assert first.exc_info is not None
    assert [record.exc_info for record in later] == [None, None]
    assert [record.args[-1] for record in later] == [LOGGED_AGAIN_S * 20] * 2  # type: ignore[index]
    assert "a place" in caplog.text
    assert len(faults._records) == 1


def fail() -> None:
    raise PlantedError


def test_an_error_that_is_not_ours_passes() -> None:
    faults = Faults(passing=(OSError,))

    def lose_the_broker() -> None:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        faults.guard("a place", lose_the_broker)


def test_a_chore_that_fails_leaves_the_others_alone_and_is_tried_again() -> None:
    """Two chores once a second for ten seconds, one of them broken until 5 s."""
    done: dict[str, list[float]] = {"broken": [], "sound": []}
    due = {"broken": 0.0, "sound": 0.0}

    def do(name: str, now: float) -> float:
        if now >= due[name]:
            if name == "broken" and now < 5:
                raise PlantedError
            done[name].append(now)
            due[name] = now + 1
        return due[name]

    faults = Faults(monotonic=lambda: now)
    chores = Chores({name: partial(do, name) for name in done}, faults)
    now = 0.0
    looks = 0
    while now < 10:
        now = chores.keep_up(now)
        looks += 1

    assert done["sound"] == [float(second) for second in range(10)]
    assert 5 <= done["broken"][0] <= 5 + LONGEST_PAUSE_S
    assert len(since(done["broken"], 5)) >= 4
    assert looks <= 10 + 10 + 5 / LONGEST_PAUSE_S + 5
