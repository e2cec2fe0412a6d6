"""Sweeping what is held, in virtual time."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.scheduling.lane import Lane
from celery_global_rate.scheduling.sweep import SLICE_S, SWEEP_S, TOGETHER, Sweep

LOOK_S = 0.001


class Floor:
    """Lanes of numbers, and a sweep to which each look at one of them takes a millisecond."""

    def __init__(self, *counts: int) -> None:
        self.now = 100.0
        self.gone: set[int] = set()
        self.looks = 0
        #: Whether a look at several of them together can tell that none is gone.
        self.is_told = False
        self.lanes = [Lane(str(index), own(str(index), Limit.parse("1/h"))) for index in range(len(counts))]
        for lane, count in zip(self.lanes, counts):
            for _ in range(count):
                self.hold(lane)
        self.sweep = Sweep(
            lambda: [lane for lane in self.lanes if lane.held],
            lambda lane, request: self.look(request),
            lambda requests: self.may_be_gone(requests),
            lambda: self.now,
        )

    @property
    def held(self) -> list[int]:
        return [request for lane in self.lanes for request in lane.held]

    def hold(self, lane: Lane) -> None:
        lane.hold(len(self.held), self.now)

    def may_be_gone(self, requests: Iterable[int]) -> bool:
        some = list(requests)
        assert len(some) <= TOGETHER
        return not (self.is_told and self.gone.isdisjoint(some))

    def look(self, request: int) -> bool:
        assert request in self.held
        self.looks += 1
        self.now += LOOK_S
        return request in self.gone

    def whole(self) -> None:
        """Sweep from one end to the other."""
        begin = self.now
        while (at := self.sweep.keep_up(self.now)) - self.now < SWEEP_S:
            self.now = at
            assert self.now < begin + 60
        self.now = at


def test_a_slice_leaves_the_loop_to_others() -> None:
    """20 requests at a millisecond each: 4 or 5 in a slice of 4 ms, then 4 ms for others, then half a second."""
    floor = Floor(13, 7)
    gaps, looks = [], []
    while floor.looks < 20:
        before = floor.looks
        at = floor.sweep.keep_up(floor.now)
        looks.append(floor.looks - before)
        gaps.append(round(at - floor.now, 6))
        floor.now = at

    assert all(4 <= count <= 5 for count in looks[:-1])
    assert gaps == [SLICE_S] * (len(gaps) - 1) + [SWEEP_S]


def test_nothing_is_done_before_it_is_time() -> None:
    floor = Floor(1)
    at = floor.sweep.keep_up(floor.now)

    assert floor.sweep.keep_up(at - 0.001) == at
    assert floor.looks == 1


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.data())
def test_all_that_is_gone_is_dropped_and_the_order_stays(counts: list[int], data: st.DataObject) -> None:
    floor = Floor(*counts)
    floor.gone = data.draw(st.sets(st.integers(0, 120)))
    alive = [request for request in floor.held if request not in floor.gone]
    floor.whole()

    assert floor.held == alive


@given(st.integers(0, 40), st.data())
def test_requests_that_start_and_come_meanwhile(count: int, data: st.DataObject) -> None:
    """Between slices some start, and are looked at no more, and some come: a later sweep has seen all."""
    floor = Floor(count)
    (lane,) = floor.lanes
    floor.gone = data.draw(st.sets(st.integers(0, 60)))
    for _ in range(data.draw(st.integers(0, 10))):
        floor.now = floor.sweep.keep_up(floor.now)
        for _ in range(data.draw(st.integers(0, min(5, len(lane.held))))):
            lane.held.popleft()
        lane.hold(61 + floor.looks, floor.now)
    before = [request for request in lane.held if request not in floor.gone]
    floor.whole()
    floor.whole()

    assert list(lane.held) == before


@given(st.integers(0, 3 * TOGETHER), st.sets(st.integers(0, 3 * TOGETHER), max_size=3))
def test_where_none_is_gone_none_is_asked_by_itself(count: int, gone: set[int]) -> None:
    """One that is gone has those asked from the first of its part on, to the end of the lane or of the slice."""
    floor = Floor(count)
    floor.is_told, floor.gone = True, gone
    alive = [request for request in floor.held if request not in gone]
    floor.whole()

    assert floor.held == alive
    assert floor.looks == 0 if len(alive) == count else floor.looks > 0
    floor.looks = 0
    floor.whole()
    assert floor.looks == 0
