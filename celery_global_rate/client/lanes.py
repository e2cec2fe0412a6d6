"""The lanes in which callers wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple
from weakref import WeakValueDictionary

from ..limits.bucket import Bucket
from ..limits.costs import Cost
from ..limits.in_force import LimitsInForce, Pauses
from ..limits.limit import Limits
from ..limits.redis_clock import RedisClock
from ..limits.reservation import SlotsInHand
from ..scheduling.lane import SHORTEST_PAUSE_S, Call, Lane
from .terms import Terms
from .waiter import Waiter

#: Nobody asks for slots within a shorter time than this, in seconds.
SHORTEST_S = 0.0001
#: If more callers wait than had their slots by the last call, the next one is so much later, in seconds: they ask
#: together. A caller that comes alone, one call after the other, asks at once.
TOGETHER_S = 0.001
#: Slots in hand are followed by others so long before the last of them is due, in seconds.
LEAD_S = 0.002

#: Takes callers out of a lane: Redis has no slot for them in time.
Refuse = Callable[[Lane, Sequence[Waiter]], None]


class CallersLane(Lane):
    """A lane whose requests give up: at once if Redis has no slot for them in time, or else at their deadline.

    Args:
        name: as the log shall name it.
        refuse: called with those that give up at once.
    """

    def __init__(self, name: str, refuse: Refuse) -> None:
        super().__init__(name, ())
        self._refuse = refuse

    def bind(self, buckets: tuple[Bucket, ...]) -> None:
        super().bind(buckets)
        self.waits_at = ()  # no other lane of this process has the same buckets

    def asks(self, wanted: int, now: float) -> Call:
        call = super().asks(wanted, now)
        self._paced_at = min(self._paced_at, now + SHORTEST_PAUSE_S)
        return call

    def _within_s(self, wanted: int, now: float) -> float:
        in_hand = self.in_hand
        latest = max((waiter.deadline for waiter in islice(self.held, in_hand, in_hand + wanted)), default=now)
        return max(latest - now, SHORTEST_S)

    def granted(self, reservation: SlotsInHand, call: Call, clock: RedisClock, now: float, chance: float) -> None:
        super().granted(reservation, call, clock, now, chance)
        if reservation.count == call.wanted and self.enters(clock) <= now:
            pause_s = TOGETHER_S if self.unprovided > 0 else 0
            self.ask_at = min(self.ask_at, max(call.sent + pause_s, clock.reached(reservation.end_us) - LEAD_S))
        if call.costs is None or reservation.count < call.wanted:  # else it is not said when the next one has its slot
            self.give_up(clock)

    def give_up(self, clock: RedisClock) -> None:
        """Let those give up for whom the next slot comes too late."""
        next_at = clock.reached(self.next_us) if self.next_us else float("-inf")
        in_vain = [waiter for waiter in islice(self.held, self.in_hand, None) if waiter.deadline < next_at]
        if in_vain:
            self._refuse(self, in_vain)

    def is_in_vain(self, waiter: Waiter, clock: RedisClock) -> bool:
        """Whether the last answer of Redis had no slot in time for a caller that is the last one here."""
        is_known = self.call is None and self.cost_of is None and (self.unprovided > 0 or self.limit is None)
        return is_known and self.next_us > 0 and clock.reached(self.next_us) > waiter.deadline


class Identity(NamedTuple):
    """What callers have in common that wait in one lane.

    Attributes:
        terms: of their limiter.
        value: of their key.
        is_costly: whether each says what it costs; the others take one unit.
    """

    terms: Terms
    value: str | None
    is_costly: bool


class Lanes:
    """The lanes of one Redis.

    Args:
        overrides: what operators have set.
        back_offs: the pauses that APIs have asked for.
        clock: the view of the Redis clock.
        put_in_force: gives a lane its buckets and its floor.
        refuse: as of a lane.
    """

    def __init__(
        self,
        overrides: LimitsInForce,
        back_offs: Pauses,
        clock: RedisClock,
        put_in_force: Callable[[Lane, tuple[Bucket, ...], int], None],
        refuse: Refuse,
    ) -> None:
        self._overrides, self._back_offs, self._clock = overrides, back_offs, clock
        self._put_in_force, self._refuse = put_in_force, refuse
        self._lanes: dict[Identity, CallersLane] = {}
        #: Those for values of a key, as long as somebody waits there: there may be any number.
        self._lanes_of_values: WeakValueDictionary[Identity, CallersLane] = WeakValueDictionary()

    def lane(self, waiter: Waiter) -> CallersLane:
        """Where a caller waits."""
        identity = Identity(waiter.terms, waiter.value, waiter.cost != 1)
        lanes = self._lanes if waiter.value is None else self._lanes_of_values
        lane = lanes.get(identity)
        if lane is None:
            lane = lanes[identity] = CallersLane(waiter.terms.name, self._refuse)
            self._configure(identity, lane)
        return lane

    def refresh(self, name: str) -> None:
        """Put in force what counts for a name now."""
        for identity, lane in (*self._lanes.items(), *self._lanes_of_values.items()):
            if identity.terms.name == name:
                self._configure(identity, lane)
                lane.give_up(self._clock)

    def _configure(self, identity: Identity, lane: Lane) -> None:
        terms = identity.terms
        limits, floor_us = self._overrides.in_force(terms.name, terms.limits)
        floor_us = max(floor_us, self._back_offs.floor_us(terms.name, identity.value))
        if identity.is_costly:
            lane.cost_of = lambda waiter: cost_of(waiter, limits)
        lane.next_us = 0  # what the last answer said does not count any more
        self._put_in_force(lane, terms.buckets(limits, identity.value), floor_us)


def cost_of(waiter: Waiter, limits: Limits) -> Cost:
    """What a caller takes of each limit. One that was set meanwhile may be too slow for all of it."""
    return tuple([min(waiter.cost, limit.largest_cost) for limit in limits])
