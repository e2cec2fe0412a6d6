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
from ..limits.timing import REPLY_TIMEOUT_S, SILENCE_S
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
    """Those that ask in one lane, and since when (monotonic seconds); and the call for the first of them, if any."""

    waiting: deque[tuple[float, Waiter]] = field(default_factory=deque)
    call: Call | None = None


@dataclass(frozen=True, eq=False)
class Call:
    """A call under way: for how many, at which costs, of which buckets, and when its answer no longer counts."""

    wanted: int
    costs: Costs | None
    buckets: tuple[Bucket, ...]
    expires: float


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
                if queue.call and now >= queue.call.expires:
                    queue.call = None
                    self._unanswered(lane, queue, now)
                else:
                    self._ask(lane, queue)
        return self._at

    def _ask(self, lane: Lane, queue: Queue) -> None:
        if queue.call:
            self._look_at(queue.call.expires)
            return
        if lane.limit is None:
            wanted = len(queue.waiting)
            is_open = lane.opens(self._clock) <= self._monotonic()
            self._answer(lane, queue, wanted if is_open else 0, wanted, None)
            return
        first = queue.waiting[0][1]
        alike = takewhile(lambda it: it[1].cost == first.cost, queue.waiting)
        wanted = sum(1 for _ in islice(alike, SLOTS_PER_CALL))
        costs = None if lane.cost_of is None else Costs((lane.cost_of(first),) * wanted)
        call = queue.call = Call(wanted, costs, lane.buckets, self._monotonic() + REPLY_TIMEOUT_S)
        self._look_at(call.expires)
        reply = partial(self._replied, lane, queue, call)
        self._limiter.reserve(lane.name, call.buckets, wanted, reply, costs, within_s=0)

    def _replied(self, lane: Lane, queue: Queue, call: Call, reservation: SlotsInHand | None) -> None:
        clock, now = self._clock, self._monotonic()
        is_late = queue.call is not call
        ready = 0
        if reservation is not None:
            if call.costs:
                reservation.costs = call.costs.of_each[: reservation.count]
            # This process may have been stopped between sending and reading.
            is_late = is_late or bool(
                reservation.count and reservation.late_s(clock, now) > lane.usable_s_of(reservation, clock)
            )
            if not is_late:  # those of a policy may lie ahead
                ready = min(reservation.due_by(max(clock.now_us(now), reservation.now_us)), call.wanted)
            reservation.used = ready
            if reservation.left:
                self._limiter.give_back(call.buckets, reservation)
        if queue.call is not call:
            return
        queue.call = None
        if reservation is None or is_late:
            self._unanswered(lane, queue, now)
        elif reservation.override:  # it is known now, and nothing was granted
            self._look_at(now)
        else:
            next_s = (reservation.slot_us(ready) - reservation.now_us) / US_PER_S
            self._answer(lane, queue, ready, call.wanted, max(0.0, next_s))

    def _unanswered(self, lane: Lane, queue: Queue, now: float) -> None:
        while queue.waiting and (self._is_away(lane.name) or now - queue.waiting[0][0] > LONGEST_S):
            queue.waiting.popleft()[1].refuse(None)
        if queue.waiting:
            self._look_at(now + AGAIN_S)
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
            self._look_at(self._monotonic())
        else:
            self._queues.pop(lane, None)

    def _look_at(self, at: float) -> None:
        self._at = min(self._at, at)
        self._wake(self._at)
