"""For how many slots the pool has room: those to ask for, and those for which a process is kept."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from ..limits.duration import US_PER_S
from ..limits.redis_clock import RedisClock
from ..limits.timing import HORIZON_S
from .capacity import Capacity
from .lane import SHORTEST_PAUSE_S, Lane
from .lists import Lists

#: What is in hand suffices if it does for this long, in seconds: about a pause between two calls.
ENOUGH_S = 0.01
#: The part of the time that a slot can be used in which those that are due together have to start: others come between.
PART = 0.5


class Room:
    """What the pool has room for, beside the slots in hand.

    Args:
        capacity: the pool's.
        lists: the worker's lanes.
        clock: the worker's view of the Redis clock.
    """

    def __init__(self, capacity: Capacity, lists: Lists, clock: RedisClock) -> None:
        self._capacity, self._lists, self._clock = capacity, lists, clock
        self._dues_us: list[float] = []
        self._is_alone = True
        #: What the pool has been found to have slots for in this turn, by how soon and how surely.
        self._slots: dict[tuple[float, float], int] = {}

    def look(self) -> None:
        """See when the slots in hand are due; one lane alone has none that come later than those it asks for."""
        self._dues_us = []
        self._slots.clear()
        self._is_alone = self._lists.is_alone
        if not self._is_alone:
            self._dues_us = sorted(
                due_us for lane in self._lists.in_hand if not lane.is_ahead for due_us in lane.dues_us
            )

    def to_ask_for(self, lane: Lane, now: float) -> int:
        """For how many more slots of a lane a process will be there in time.

        A slot can be used until its grace ends, so that is when processes count, those whose task will probably end
        by then among them. How sure that must be depends on what becomes of the slot otherwise. One that lies ready is
        lost if nobody takes it now. One that lies ahead can be had later, by us or by a worker with a process for it
        then. If others wait, count on two standard deviations fewer than expected as soon as it lies a grace ahead.

        Slots in hand that are due later need no process until then. But there must be room for all of them within the
        horizon as well: where tasks run for long, a process that is taken now is not there again then. And no more of
        them are due together than can be released while they can be used: limits that began together would have their
        slots at the same instants forever, and lose all but the first of them.
        """
        assert lane.limit is not None
        capacity, committed, usable_s = self._capacity, self._lists.totals.committed, lane.usable_s
        if 0 < lane.committed >= self._slots_within(ENOUGH_S):
            return 0
        ahead_s = lane.ahead_s(self._clock, now)
        deviations = 0.3 + (1.7 * min(1.0, ahead_s / usable_s) if lane.waiting > 1 else 0.0)
        within_s = ahead_s + usable_s
        room = self._slots_within(within_s, deviations) - committed
        if self._is_alone:
            return room
        dues_us, at_us, usable_us = self._dues_us, self._clock.now_us(now + ahead_s), usable_s * US_PER_S
        end = bisect_right(dues_us, at_us + usable_us)
        room += len(dues_us) - end
        room = min(room, self._slots_within(HORIZON_S + usable_s, deviations) - committed)
        place = bisect_right(dues_us, at_us)
        together = max(end - place, place - bisect_left(dues_us, at_us - usable_us))
        for_loop = int(PART * usable_s / capacity.loop_s) - together
        return room if for_loop > usable_s / lane.limit.interval_s + 1 else min(room, for_loop)

    def _slots_within(self, within_s: float, deviations: float = 0.0) -> int:
        """The capacity's answer, which is the same for all lanes that ask in one turn."""
        key = within_s, deviations
        if key not in self._slots:
            self._slots[key] = self._capacity.slots(*key)
        return self._slots[key]

    def asked(self, lane: Lane, now: float) -> None:
        """A slot is asked for: it will be due when the next one was, by the last answer."""
        if not self._is_alone:
            insort(self._dues_us, self._clock.now_us(now + lane.ahead_s(self._clock, now)))

    def of_use(self, now: float, most: int) -> tuple[int, float]:
        """How many processes could be used in a moment, up to as many as there are.

        Args:
            now: monotonic seconds.
            most: more are not counted.

        Returns:
            How many, and the monotonic instant at which one is to be claimed for a further slot.
        """
        of_use, claim_at = 0, float("inf")
        for lane in self._lists.claimants:
            claim_s = self._capacity.claim_s(lane.usable_s)
            by_us = self._clock.now_us(now + claim_s)
            of_use += self._of_use(lane, by_us, now)
            next_at = self._clock.reached(lane.first_after(by_us)) - claim_s
            if next_at > now:
                claim_at = min(claim_at, next_at)
            if lane.first_us > by_us or of_use >= most:
                break
        return of_use, claim_at

    def _of_use(self, lane: Lane, by_us: float, now: float) -> int:
        """Processes that a lane could use in a moment: for slots that are due by the time that one comes.

        If slots lie ready, it could use one for each slot in hand, and for each request that is about to ask for one.
        """
        if lane.has_spare:
            is_asking = lane.call is None and lane.ask_at <= now + SHORTEST_PAUSE_S
            return lane.committed + (lane.unprovided if is_asking else 0)
        if lane.in_hand:
            return sum(reservation.due_by(by_us) for reservation in lane.reservations)
        return int(lane.call is None and lane.unprovided > 0 and 0 < lane.next_us <= by_us)
