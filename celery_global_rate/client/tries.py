"""Callers that do not wait: those of one lane ask together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, takewhile
from typing import Protocol

from ..limits.bucket import Bucket
from ..limits.costs import Costs
from ..limits.duration import US_PER_S
from ..limits.lane_reservation import SLOTS_PER_CALL
from ..limits.redis_clock import RedisClock
from ..limits.reservation import Reply, SlotsInHand
from ..limits.timing import SILENCE_S
from ..scheduling.lane import Lane
from .waiter import Waiter

#: How long an answer is waited for, in seconds: an outage has begun before, and the policy answers.
LONGEST_S = 1.5 * SILENCE_S
#: From a call without an answer to the next one, in seconds.
AGAIN_S = 0.02


class Limiter(Protocol):
    """What is known of the limiter."""

    clock: RedisClock

    def reserve(
        self,
        name: str,
        buckets: tuple[Bucket, ...],
        wanted: int,
        reply: Reply,
        costs: Costs | None = None,
        within_s: float = ...,
    ) -> None:
        """Ask for slots that are no further ahead than this; with 0, for those that lie ready."""

    def give_back(self, buckets: tuple[Bucket, ...], reservation: SlotsInHand) -> None:
        """Return what is left of a reservation."""


@dataclass(eq=False)
class Queue:
    """Those that ask in one lane, and since when (monotonic seconds); a call for the first of them may be under way."""

    waiting: deque[tuple[float, Waiter]] = field(default_factory=deque)
    is_asking: bool = False


class Tries:
    """Asks for slots that lie ready, with one call at a time for each lane.

    Args:
        limiter: where slots come from.
        is_away: whether there is an outage of a lane, by its name: then the policy has the last word.
        wake: asks for a turn at a monotonic instant.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self,
        limiter: Limiter,
        is_away: Callable[[str], bool],
        wake: Callable[[float], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._limiter, self._clock = limiter, limiter.clock
        self._is_away = is_away
        self._wake = wake
        self._monotonic = monotonic
        self._queues: dict[Lane, Queue] = {}
        self._at = float("inf")

    def add(self, lane: Lane, waiter: Waiter) -> None:
        """Answer a caller as soon as it is known whether there is a slot."""
        queue = self._queues.setdefault(lane, Queue())
        queue.waiting.append((self._monotonic(), waiter))
        self._ask(lane, queue)

    def keep_up(self, now: float) -> float:
        """Ask again for those without an answer; returns the monotonic instant of the next time."""
        if now >= self._at:
            self._at = float("inf")
            for lane, queue in list(self._queues.items()):
                self._ask(lane, queue)
        return self._at

    def _ask(self, lane: Lane, queue: Queue) -> None:
        if queue.is_asking:
            return
        cost = queue.waiting[0][1].cost
        wanted = sum(1 for _ in islice(takewhile(lambda it: it[1].cost == cost, queue.waiting), SLOTS_PER_CALL))
        if lane.limit is None:
            is_open = lane.opens(self._clock) <= self._monotonic()
            self._answer(lane, queue, wanted if is_open else 0, wanted, None)
            return
        costs = None if lane.cost_of is None else Costs((lane.cost_of(queue.waiting[0][1]),) * wanted)
        queue.is_asking = True
        reply = partial(self._replied, lane, lane.buckets, queue, wanted, costs)
        self._limiter.reserve(lane.name, lane.buckets, wanted, reply, costs, within_s=0)

    def _replied(
        self,
        lane: Lane,
        buckets: tuple[Bucket, ...],
        queue: Queue,
        wanted: int,
        costs: Costs | None,
        reservation: SlotsInHand | None,
    ) -> None:
        queue.is_asking = False
        now = self._monotonic()
        if reservation is None:
            self._unanswered(lane, queue, now)
            return
        if reservation.override:  # it is known now, and nothing was granted
            self._ask(lane, queue)
            return
        if costs:
            reservation.costs = costs.of_each[: reservation.count]
        is_late = reservation.count and reservation.late_s(self._clock, now) > lane.usable_s_of(
            reservation, self._clock
        )
        ready = 0 if is_late else min(reservation.due_by(max(self._clock.now_us(now), reservation.now_us)), wanted)
        next_s = (reservation.slot_us(ready) - reservation.now_us) / US_PER_S
        reservation.used = ready
        if reservation.left:
            self._limiter.give_back(buckets, reservation)
        if is_late:  # this process was stopped between sending and reading
            self._unanswered(lane, queue, now)
        else:
            self._answer(lane, queue, ready, wanted, max(0.0, next_s))

    def _unanswered(self, lane: Lane, queue: Queue, now: float) -> None:
        while queue.waiting and (self._is_away(lane.name) or now - queue.waiting[0][0] > LONGEST_S):
            queue.waiting.popleft()[1].refuse(None)
        if queue.waiting:
            self._at = min(self._at, now + AGAIN_S)
            self._wake(self._at)
        else:
            self._queues.pop(lane, None)

    def _answer(self, lane: Lane, queue: Queue, granted: int, asked: int, retry_after: float | None) -> None:
        """The first ones have their slots, and the others that asked with them have none."""
        for place in range(min(asked, len(queue.waiting))):
            waiter = queue.waiting.popleft()[1]
            if place < granted:
                waiter.grant()
            else:
                waiter.refuse(retry_after)
        if queue.waiting:
            self._at = self._monotonic()
            self._wake(self._at)
        else:
            self._queues.pop(lane, None)
