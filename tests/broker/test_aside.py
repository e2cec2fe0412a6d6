"""Which queues are put aside, with queues and lanes but neither broker nor worker."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_global_rate.broker.aside import LOOK_S, SOONEST_S, Aside
from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.redis_clock import RedisClock
from celery_global_rate.scheduling.lane import Lane

MOST = 20


class Queues:
    """A worker's queues; what is aside brings nothing."""

    def __init__(self, *names: str, spared: tuple[str, ...] = ()) -> None:
        self.names = set(names)
        self.spared = spared
        self.aside: frozenset[str] = frozenset()

    def can_spare(self, name: str) -> bool:
        return name not in self.spared

    def put_aside(self, names: frozenset[str]) -> None:
        self.aside = names


class World:
    """Queues, a lane for each limit, and time."""

    def __init__(self, *names: str, most: int = MOST, spared: tuple[str, ...] = ()) -> None:
        self.now = 100.0
        self.clock = RedisClock()
        self.clock.observe(round(self.now * 1e6), self.now, self.now)
        self.queues = Queues(*names, spared=spared)
        self.lanes: dict[str, Lane] = {}
        self.aside = Aside(most, self.queues, lambda: self.held, self.lanes.values, self.clock, lambda: self.now)
        self.aside.begin()

    @property
    def held(self) -> int:
        return sum(lane.held_count for lane in self.lanes.values())

    def hold(self, queue: str | None, count: int, rate: str = "1/m") -> int:
        """Messages come, as many as the queue may bring; returns what may be lent then."""
        lane = self.lanes.setdefault(rate, Lane(rate, own(rate, Limit.parse(rate))))
        for _ in range(count):
            if queue in self.queues.aside:
                break
            lane.held.append(SimpleNamespace(queue_name=queue))
            self.aside.received()
            self.aside.room()
        return self.aside.room()

    def release(self, rate: str, count: int) -> None:
        """The first ones start, and the next look is due."""
        for _ in range(count):
            self.lanes[rate].held.popleft()
        self.look()

    def look(self) -> None:
        self.now += LOOK_S
        self.aside.keep_up(self.now)


def test_a_queue_that_holds_all_it_may_is_put_aside_and_consumed_again_a_quarter_later() -> None:
    world = World("a", "b")
    world.hold("a", 50)
    full = world.queues.aside, len(world.lanes["1/m"].held)
    world.release("1/m", 4)
    still = world.queues.aside
    world.release("1/m", 1)

    assert full == ({"a"}, MOST)  # type: ignore[comparison-overlap]  # a set equals a frozenset
    assert still == {"a"}
    assert world.queues.aside == frozenset()


def test_the_only_queue_is_never_put_aside() -> None:
    world = World("a")

    assert world.hold("a", 50) == MOST
    assert world.queues.aside == frozenset()


def test_a_queue_that_cannot_be_spared_is_not_and_its_backlog_has_the_places_that_it_had() -> None:
    world = World("a", "b", spared=("a",))

    assert world.hold("a", 50) == MOST
    assert world.queues.aside == frozenset()


def test_one_queue_is_always_consumed_and_takes_its_turn_when_another_is_taken_back() -> None:
    """Both are full. While one is aside the other is consumed; what the first one holds then does not go short."""
    world = World("a", "b")
    world.hold("a", 50)
    room = world.hold("b", 40, "2/m")
    first = world.queues.aside
    world.release("1/m", 5)

    assert first == {"a"}
    assert room == MOST + MOST
    assert world.queues.aside == {"b"}
    assert world.aside.room() == sys.maxsize


@pytest.mark.parametrize(("rate", "is_aside"), [("9/s", True), ("11/s", False)])
def test_a_limit_that_releases_a_quarter_in_half_a_second_keeps_its_queue(rate: str, is_aside: bool) -> None:
    """A quarter of 20 in 0.5 s are 10/s: the whole of it drains in two seconds."""
    world = World("a", "b")
    room = world.hold("a", 50, rate)

    assert bool(world.queues.aside) == is_aside
    assert room == (sys.maxsize if is_aside else MOST)


def test_workers_that_share_a_limit_release_their_share_of_it() -> None:
    """18/s, of which half are for another worker."""
    world = World("a", "b")
    world.lanes["18/s"] = Lane("18/s", own("18/s", Limit.parse("18/s")))
    world.lanes["18/s"].waiting = 2
    world.hold("a", 50, "18/s")

    assert world.queues.aside == {"a"}


def test_a_pause_makes_a_fast_limit_slow_and_its_end_takes_the_queue_back() -> None:
    world = World("a", "b")
    world.hold("a", 50, "100/s")
    fast = world.queues.aside
    world.lanes["100/s"].floor_us = round((world.now + 60) * 1e6)
    world.look()
    paused = world.queues.aside
    world.now += 60 - SOONEST_S / 2
    world.look()

    assert (fast, paused, world.queues.aside) == (frozenset(), {"a"}, frozenset())  # type: ignore[comparison-overlap]  # a set equals a frozenset


def test_a_limit_that_is_lifted_takes_its_queue_back_at_once() -> None:
    world = World("a", "b")
    world.hold("a", 50)
    world.lanes["1/m"].limit = None
    world.look()

    assert world.queues.aside == frozenset()


def test_nothing_is_put_aside_before_the_worker_is_connected_nor_after_it_was() -> None:
    world = World("a", "b")
    world.aside.forget()
    world.hold("a", 50)
    world.look()

    assert world.queues.aside == frozenset()
    assert world.aside.room() == MOST


def test_a_queue_that_the_worker_is_told_to_cancel_is_not_aside_any_more() -> None:
    world = World("a", "b", "c")
    world.hold("a", 50)
    world.queues.names.discard("a")
    world.look()

    assert world.aside.names == frozenset()


def test_requests_of_unknown_queues_put_nothing_aside() -> None:
    world = World("a", "b")

    assert world.hold(None, 50) == MOST
    assert world.queues.aside == frozenset()


def test_the_log_says_it_once_for_each_queue(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "celery_global_rate")
    world = World("a", "b", "c")
    for _ in range(3):
        world.hold("a", 30)
        world.hold("b", 30, "2/m")
        world.release("1/m", 15)
        world.release("2/m", 15)
    said = [record.getMessage() for record in caplog.records]

    assert len(said) == 2
    assert "queue a is put aside whenever 20 of its tasks are held (global_rate_max_held)" in said[0]
    assert said[0].endswith(": 1/m at 1/m")
    assert "queue b " in said[1]


EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["1/m", "1/s", "100/s"]), st.integers(0, 30), st.booleans()),
    max_size=40,
)


@given(st.integers(1, 40), st.sampled_from([(), ("c",), ("b", "c")]), EVENTS)
def test_whatever_comes_and_goes(most: int, spared: tuple[str, ...], events: list[Any]) -> None:
    """One queue is always consumed; each held message has its own place except those above a queue's share.

    A queue is aside only with more than three quarters of its share held, and is not without any. The places are those
    of the last look, which comes after a sixteenth of the share.
    """
    world = World("a", "b", "c", most=most, spared=spared)
    for queue, rate, count, is_coming in events:
        if is_coming:
            world.hold(queue, count, rate)
        elif rate in world.lanes:
            world.release(rate, min(count, len(world.lanes[rate].held)))
        world.look()
        held = dict.fromkeys("abc", 0)
        for lane in world.lanes.values():
            for request in lane.held:
                held[request.queue_name] += 1
        aside = world.queues.aside

        assert len(aside) < 3
        assert not aside.intersection(spared)
        assert all(held[name] > world.aside.again_at for name in aside)
        if sum(held.values()) >= most:
            needed = sum(count if name in aside else min(count, most) for name, count in held.items())
            assert world.aside.room() >= needed
    for rate, lane in world.lanes.items():
        world.release(rate, len(lane.held))

    assert world.queues.aside == frozenset()
