"""Callers that wait, in virtual time: real scheduler, lanes and script, and callers that come again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytest

from celery_global_rate.client.callers import Callers
from celery_global_rate.client.engine import START_S
from celery_global_rate.client.lanes import TOGETHER_S, Lanes
from celery_global_rate.client.terms import Terms
from celery_global_rate.client.waiter import Waiter
from celery_global_rate.limits.bucket import Bucket as LimitBucket
from celery_global_rate.limits.costs import Costs
from celery_global_rate.limits.limit import Limit, Limits
from celery_global_rate.limits.redis_clock import LAST_US, RedisClock
from celery_global_rate.limits.reservation import Reply, Reservation, SlotsInHand
from celery_global_rate.scheduling.faults import Faults
from celery_global_rate.scheduling.lane import Lane
from celery_global_rate.scheduling.pace import Pace
from celery_global_rate.scheduling.scheduler import Scheduler
from testbed.windows import excess, used

from ..conftest import Figures
from ..scheduling.simulation import World
from ..storage.replay import Bucket

LATENCY_S, LATENESS_S = 0.0002, 0.0005


class Caller(Waiter):
    """One that calls its process back."""

    __slots__ = ("ended",)

    def __init__(self, terms: Terms, ended: Callable[[], None], deadline: float = float("inf")) -> None:
        super().__init__(terms, None, 1, None)
        self.ended, self.deadline = ended, deadline

    def _wake(self) -> None:
        self.ended()


class Process:
    """One process with callers: what is in its hub but for the connection."""

    def __init__(self, world: World, bucket: Bucket, limit: Limit, name: str) -> None:
        self.world, self._bucket, self._name = world, bucket, name
        self.terms = Terms(name, (limit,), ("",), is_crossed=False)
        self.clock = RedisClock()
        self.released: list[float] = []
        self.gave_up: list[tuple[float, float]] = []
        self.calls = self._alarm = 0
        faults = Faults(monotonic=self.monotonic)
        chance = world.random.random
        self.scheduler = Scheduler(
            Callers(), self, self._wake, lambda held: None, self.monotonic, chance, faults, START_S, Pace(TOGETHER_S)
        )
        self.lanes = Lanes(self, self, self.clock, lambda *it: self.scheduler.configure(*it), self._refuse)

    def monotonic(self) -> float:
        return self.world.now

    def in_force(self, name: str, declared: Limits) -> tuple[Limits, int]:
        return declared, 0

    def floor_us(self, name: str, value: str | None) -> int:
        return 0

    def _wake(self, at: float) -> None:
        self._alarm += 1
        generation = self._alarm

        def ring() -> None:
            if generation == self._alarm:
                self.scheduler.pump()

        self.world.at(at + LATENESS_S, ring)

    def _refuse(self, lane: Lane, waiters: Sequence[Waiter]) -> None:
        self.scheduler.withdraw(lane, waiters)
        for waiter in waiters:
            self.gave_up.append((self.world.now, waiter.deadline))
            waiter.refuse(None)

    def reserve(
        self,
        name: str,
        buckets: tuple[LimitBucket, ...],
        wanted: int,
        reply: Reply,
        costs: Costs | None = None,
        within_s: float = float("inf"),
    ) -> None:
        self.calls += 1
        sent = self.world.now

        def arrive() -> None:
            self._bucket.latest_us = int(min(1e6 * within_s, LAST_US))
            answer = self._bucket.reserve(self.world.redis_us, buckets[0].limit, wanted, self._name)
            self.world.after(LATENCY_S, partial(come_back, answer))

        def come_back(answer: Reservation) -> None:
            self.clock.observe(answer.now_us, sent, self.world.now)
            reply(answer)

        self.world.after(LATENCY_S, arrive)

    @contextmanager
    def together(self) -> Iterator[None]:
        yield

    def give_back(self, buckets: tuple[LimitBucket, ...], reservation: SlotsInHand) -> None:
        assert isinstance(reservation, Reservation)

        def arrive() -> None:
            self._bucket.give_back(self.world.redis_us, reservation)

        self.world.after(LATENCY_S, arrive)

    def call(self, ended: Callable[[Caller], None], within_s: float = float("inf")) -> None:
        """One caller comes. It gives up as it does in the hub."""
        caller = Caller(self.terms, lambda: ended(caller), self.world.now + within_s)
        caller.lane = lane = self.lanes.lane(caller)
        self.scheduler.hold(lane, caller)
        if not caller.is_over and lane.is_in_vain(caller, self.clock):
            self._refuse(lane, [caller])
        elif within_s < float("inf"):
            self.world.at(caller.deadline, lambda: None if caller.is_over else self._refuse(lane, [caller]))

    def call_again(self, pause_s: float, within_s: float = float("inf")) -> None:
        """A caller that calls again after a pause, whether it had a slot or not."""

        def ended(caller: Caller) -> None:
            if caller.error is None:
                self.released.append(self.world.now)
            self.world.after(pause_s, lambda: self.call(ended, within_s))

        self.call(ended, within_s)


@pytest.fixture
def world() -> World:
    return World(lambda *it: Reservation(0, 0, 0, 0, 0, 0, 0, 0), lambda *it: None)


@pytest.mark.parametrize(
    ("interval_us", "processes", "callers", "pause_s", "calls_each"),
    [(1_000, 4, 50, 0.0002, 0.1), (2_000, 1, 1, 0.0002, 1.01), (1_000, 1, 5, 0.001, 1.0), (50_000, 3, 5, 0.001, 2.0)],
)
def test_all_slots_are_used_by_few_calls(
    world: World,
    bucket: Bucket,
    figures: Figures,
    interval_us: int,
    processes: int,
    callers: int,
    pause_s: float,
    calls_each: float,
) -> None:
    limit = Limit(interval_us)
    found = [Process(world, bucket, limit, str(number)) for number in range(processes)]
    for process in found:
        for _ in range(callers):
            world.after(world.random.random() / 100, partial(process.call_again, pause_s))
    world.run(6)
    instants = sorted(instant for process in found for instant in process.released)
    share = used(instants, limit.interval_s, 1, 5)
    each = sum(process.calls for process in found) / len(instants)
    figures(f"{processes} processes with {callers} callers, {interval_us} us: {share:.4f} used, {each:.3f} calls each")

    assert share >= 0.99
    assert each <= calls_each
    assert excess(instants, limit.interval_s, 1, limit.grace_s + 2 * LATENCY_S) <= 1e-6
    assert int(bucket.client.hget(bucket.key, "given") or 0) - len(instants) <= 0.1 / limit.interval_s + 2 * processes


def test_those_that_give_up_spend_nothing(world: World, bucket: Bucket, figures: Figures) -> None:
    """Three times as many as there are slots, of which each gives up after 0.02 to 0.3 s: all slots are used."""
    limit = Limit(10_000)
    process = Process(world, bucket, limit, "one")
    for number in range(60):
        within_s = 0.02 + 0.28 * world.random.random()
        world.after(number / 1000, partial(process.call_again, 0.05, within_s))
    world.run(6)
    share = used(process.released, limit.interval_s, 1, 5)
    early_s = max(deadline - at for at, deadline in process.gave_up)
    figures(f"{len(process.gave_up)} gave up, {len(process.released)} went on: {share:.4f} of the slots used")

    assert share >= 0.99
    assert len(process.gave_up) > 100
    assert all(at <= deadline for at, deadline in process.gave_up)
    assert early_s > 0, "some did not wait for their deadline"


def test_a_short_timeout_books_nothing_that_lies_beyond_it(world: World, bucket: Bucket) -> None:
    """The next slot is 80 ms ahead, within the horizon: whoever gives up after 20 ms does not have it booked."""
    process = Process(world, bucket, Limit(80_000), "one")
    ended: list[Caller] = []
    process.call(ended.append)
    world.run(0.01)
    for _ in range(3):
        process.call(ended.append, 0.02)
        world.run(world.now + 0.005)
    world.run(0.05)

    assert [caller.error is None for caller in ended] == [True, False, False, False]
    assert bucket.client.hget(bucket.key, "given") == "1"
