"""Callers that do not wait, in virtual time: one call for those of a lane, and what becomes of answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from celery_global_rate.client.lanes import Lanes
from celery_global_rate.client.terms import Terms
from celery_global_rate.client.tries import AGAIN_S, LONGEST_S, Tries
from celery_global_rate.client.waiter import Waiter
from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.costs import Costs
from celery_global_rate.limits.limit import Limit, Limits
from celery_global_rate.limits.redis_clock import RedisClock
from celery_global_rate.limits.reservation import Reply, Reservation, SlotsInHand
from celery_global_rate.limits.timing import REPLY_TIMEOUT_S
from celery_global_rate.scheduling.lane import Lane

EPOCH_US = 1_800_000_000_000_000
TERMS = Terms("crm", (Limit(10_000),), ("smooth",), is_crossed=False)


class Caller(Waiter):
    """One that notes its answer."""

    __slots__ = ()

    def _wake(self) -> None: ...

    @property
    def answer(self) -> bool | None:
        return None if not self.is_over else self.error is None


@dataclass
class World:
    """A clock, a limiter that keeps calls until the test answers them, and operators that have set nothing."""

    now: float = 100.0
    clock: RedisClock = field(default_factory=RedisClock)
    limits: Limits = TERMS.limits
    is_away: bool = False
    calls: list[tuple[int, Reply, Costs | None]] = field(default_factory=list)
    returned: list[int] = field(default_factory=list)
    woken: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock.observe(EPOCH_US, self.now, self.now)
        self.tries = Tries(self, lambda name: self.is_away, self.woken.append, lambda: self.now)
        self.lanes = Lanes(self, self, self.clock, self._bind, lambda lane, waiters: None)

    def in_force(self, name: str, declared: Limits) -> tuple[Limits, int]:
        return self.limits, 0

    def floor_us(self, name: str, value: str | None) -> int:
        return 0

    def _bind(self, lane: Lane, buckets: tuple[Bucket, ...], floor_us: int) -> None:
        lane.bind(buckets)

    def reserve(
        self,
        name: str,
        buckets: tuple[Bucket, ...],
        wanted: int,
        reply: Reply,
        costs: Costs | None = None,
        within_s: float = 1,
    ) -> None:
        assert within_s == 0
        self.calls.append((wanted, reply, costs))

    def give_back(self, buckets: tuple[Bucket, ...], reservation: SlotsInHand) -> None:
        self.returned.append(reservation.left)

    def call(self, count: int = 1, cost: int = 1) -> list[Caller]:
        callers = [Caller(TERMS, None, cost, 0) for _ in range(count)]
        for caller in callers:
            self.tries.add(self.lanes.lane(caller), caller)
        return callers

    def slots(self, count: int, ahead_us: int = 0, seq: int = 1, **more: Any) -> Reservation:
        """What Redis answers now; without slots, the next one is that far ahead."""
        now_us = round(self.clock.now_us(self.now))
        return Reservation(now_us, now_us + ahead_us, 0, 10_000, 0, count, seq, 1, **more)

    def answer(self, reservation: Reservation | None, place: int = -1) -> None:
        self.calls[place][1](reservation)

    def turn(self, later_s: float = 0.0) -> None:
        self.now += later_s
        self.tries.keep_up(self.now)


@pytest.fixture
def world() -> World:
    return World()


def answers(callers: list[Caller]) -> list[bool | None]:
    return [caller.answer for caller in callers]


def test_those_that_come_while_a_call_is_under_way_share_the_next_one(world: World) -> None:
    first, others = world.call(), world.call(5)
    assert [wanted for wanted, *_ in world.calls] == [1]
    world.answer(world.slots(1))
    world.turn()
    assert [wanted for wanted, *_ in world.calls] == [1, 5]
    world.answer(world.slots(0, ahead_us=7_000))

    assert answers(first) == [True]
    assert answers(others) == [False] * 5
    assert [caller.error.retry_after for caller in others if caller.error] == pytest.approx([0.007] * 5)


def test_the_first_ones_have_the_slots_that_there_are(world: World) -> None:
    world.limits = (Limit(10_000, burst=9),)
    callers = world.call(4)
    world.answer(world.slots(1, ahead_us=-50_000))
    world.turn()
    world.answer(world.slots(2, ahead_us=-40_000))

    assert answers(callers) == [True, True, True, False]
    assert world.returned == []


def test_a_call_is_for_a_hundred_at_the_most_and_the_others_ask_after_it(world: World) -> None:
    callers = world.call() + world.call(250)
    for wanted in (1, 100, 100, 50):
        assert world.calls[-1][0] == wanted
        world.answer(world.slots(wanted, ahead_us=-1_000_000, seq=1))
        world.turn()

    assert answers(callers) == [True] * 251


def test_each_call_is_for_one_cost(world: World) -> None:
    small, large = world.call(2, cost=2), world.call(2, cost=3)
    for costs in ((2,), (2,), (3,)):
        found = world.calls[-1][2]
        assert found is not None
        assert set(found.of_each) == {costs}
        world.answer(world.slots(0, ahead_us=5_000))
        world.turn()

    assert answers(small + large) == [False] * 4


def test_without_an_answer_it_asks_again_and_what_comes_late_goes_back(world: World) -> None:
    (caller,) = world.call()
    late = world.calls[0]
    world.turn(REPLY_TIMEOUT_S)
    assert caller.answer is None
    world.turn(AGAIN_S)
    assert len(world.calls) == 2
    late[1](world.slots(1))
    assert (caller.answer, world.returned) == (None, [1])
    world.answer(world.slots(1))

    assert caller.answer is True


def test_a_slot_that_was_read_too_late_goes_back(world: World) -> None:
    """This process was stopped between sending and reading."""
    (caller,) = world.call()
    reservation = world.slots(1)
    world.now += 0.1
    world.answer(reservation)
    assert (caller.answer, world.returned) == (None, [1])
    world.turn(AGAIN_S)
    world.answer(world.slots(1))

    assert caller.answer is True


def test_nobody_is_kept_for_longer_than_it_takes_to_notice_an_outage(world: World) -> None:
    (caller,) = world.call()
    for _ in range(10):
        world.turn(REPLY_TIMEOUT_S)
        world.turn(AGAIN_S)

    assert caller.answer is False
    assert len(world.calls) <= 1 + LONGEST_S / REPLY_TIMEOUT_S


def test_in_an_outage_the_policy_has_the_last_word(world: World) -> None:
    world.is_away = True
    (held,) = world.call()
    world.answer(None)
    (ahead,) = world.call()
    world.answer(world.slots(1, ahead_us=40_000, seq=0))
    (at_once,) = world.call()
    world.answer(world.slots(1, seq=0))

    assert answers([held, ahead, at_once]) == [False, False, True]
    assert world.returned == [1], "what lies ahead is not for those that do not wait"


def test_an_override_that_was_not_known_is_asked_with_at_once(world: World) -> None:
    (caller,) = world.call()
    world.answer(world.slots(0, override="2:b:0:{}"))
    world.turn()
    world.answer(world.slots(1))

    assert caller.answer is True


def test_without_a_limit_all_go_on_and_nothing_is_asked(world: World) -> None:
    world.limits = ()

    assert answers(world.call(3) + world.call(2, cost=7)) == [True] * 5
    assert world.calls == []
