"""What the scripts do. Instants are ticks from now."""

from __future__ import annotations

from typing import NamedTuple

from ..state import FAR
from .setup import Setup


class Limit(NamedTuple):
    """The state of a limit in Redis.

    Attributes:
        last: S; None if there is no state: the bucket is full.
        lead: how far it was ahead of the clock when it was written.
        seq: the serial of the last booking.
        holes: the free slots before S, in order.
        interval: the T of these.
        grid: the serial with which they began; None if there is none.
    """

    last: int | None = None
    lead: int = 0
    seq: int = 0
    holes: tuple[int, ...] = ()
    interval: int = 0
    grid: int | None = None

    @property
    def has_stepped(self) -> bool:
        """Whether the clock has stepped back since it was written: S is further ahead than it was."""
        return self.last is not None and self.last > self.lead

    def moved(self, ticks: int) -> Limit:
        """With all instants later by so many ticks."""
        if self.last is None:
            return self
        return self._replace(last=self.last + ticks, holes=tuple([hole + ticks for hole in self.holes]))


class Slot(NamedTuple):
    """A slot of a lane: from when until when a start may use it, and the slot of each limit."""

    start: int
    until: int
    row: tuple[int, ...]

    def moved(self, ticks: int) -> Slot:
        """With all instants later by so many ticks."""
        start, until, *row = [max(FAR, us + ticks) for us in (self.start, self.until, *self.row)]
        return Slot(start, until, tuple(row))


class Caller(NamedTuple):
    """A limit as a call for a lane sees it."""

    setup: Setup
    state: Limit
    interval: int
    reach: int
    is_crossed: bool
    slack: int

    @property
    def following(self) -> int | None:
        """S + T; None if there is no S."""
        return None if self.state.last is None else self.state.last + self.interval

    @property
    def oldest(self) -> int:
        """The oldest slot of use now."""
        return -self.reach - self.setup.age

    def find(self, at: int) -> tuple[int, int]:
        """The slot for a start at an instant, and the start: then, or at the first instant after it."""
        following = self.following
        first, low = at - self.reach, at - self.reach - self.setup.age
        hole = self._hole(at, first, low)
        if hole is not None:
            return max(at, hole), hole
        if following is None or following <= self.oldest:
            return at, first
        if following > at:
            return following, following
        return self._behind(at, following) if self.is_crossed else (at, max(following, low))

    def _behind(self, at: int, following: int) -> tuple[int, int]:
        """Where S + T has come, and others pass the limit: a slot in step with S, else as old as may be."""
        first, low = at - self.reach, at - self.reach - self.setup.age
        slot = following + max(0, -((following - first) // self.interval)) * self.interval
        if at < slot and slot - self.interval >= low:
            slot -= self.interval
        if slot - at > self.slack:
            slot = low
        return max(at, slot), slot

    def _hole(self, at: int, first: int, low: int) -> int | None:
        """The oldest hole within reach, then the newest beyond it; one that is later, if there is no other."""
        within = min([hole for hole in self.state.holes if hole >= first], default=None)
        older = max([hole for hole in self.state.holes if low <= hole < first], default=None)
        if within is None or (within > at and older is not None):
            return older
        return within

    def book(self, slot: int) -> Caller:
        """Book a slot that was found."""
        state, interval = self.state, self.interval
        if state.last is not None and slot <= state.last:
            if "hole kept" in self.setup.faults:
                return self
            return self._replace(state=state._replace(holes=tuple([hole for hole in state.holes if hole != slot])))
        holes = list(state.holes)
        if self.is_crossed:
            before = self.oldest if self.following is None else max(self.following, self.oldest)
            if "holes overlap" in self.setup.faults and state.last is not None:
                before = max(state.last + 1, self.oldest)
            skipped = max(0, (slot - before) // interval)
            holes += range(slot - skipped * interval, slot, interval)
        return self._replace(state=state._replace(last=slot, holes=tuple(holes)))

    def until(self, start: int, slot: int) -> int:
        """Until when a start may use a slot."""
        if "slot older" in self.setup.faults:
            return start + self.setup.grace
        return min(start, slot + self.reach) + self.setup.grace


def seen(setup: Setup, limit: Limit) -> Limit:
    """slots.lua: where S is further ahead than when it was written, the clock has stepped back."""
    if not limit.has_stepped or "step unseen" in setup.faults:
        return limit
    if "holes stay" in setup.faults:
        return limit._replace(last=limit.lead)
    return limit._replace(last=limit.lead, holes=(), interval=0, grid=None)


def reserve(
    setup: Setup, limits: tuple[Limit, ...], lane: tuple[int, ...], intervals: tuple[int, ...], wanted: int, clock: int
) -> tuple[tuple[Limit, ...], tuple[Slot, ...], int]:
    """reserve_lane.lua: the limits afterwards, the slots, and the serial."""
    after = list(limits)
    callers: list[Caller] = []
    for number in lane:
        state = after[number] = seen(setup, limits[number])
        if state.interval != intervals[number]:
            state = state._replace(holes=(), interval=intervals[number], grid=None)
        reach = setup.reach(number, intervals[number])
        slack = setup.age if len(lane) > 1 else 0
        callers.append(Caller(setup, state, intervals[number], reach, setup.is_crossed(number), slack))
    at, slots = 0, list[Slot]()
    while True:
        at, row = next_of_lane(callers, at)
        if len(slots) == wanted or at > setup.horizon:
            break
        slots.append(Slot(at, min([its.until(at, us) for its, us in zip(callers, row)]), row))
        unbooked = callers[-1:] if "one not booked" in setup.faults and callers[1:] else []
        callers = [its if its in unbooked else its.book(us) for its, us in zip(callers, row)]
    if not slots:
        if "refused books" in setup.faults:
            after[lane[0]] = callers[0].book(row[0]).state
        return tuple(after), (), 0
    seq = max([clock, *(its.state.seq + 1 for its in callers)])
    for number, its in zip(lane, callers):
        grid = seq if its.state.grid is None else its.state.grid
        state = its.state
        if state.last is not None:
            after[number] = state._replace(lead=max(0, state.last), seq=seq, grid=grid)
    return tuple(after), tuple(slots), seq


def next_of_lane(callers: list[Caller], at: int) -> tuple[int, tuple[int, ...]]:
    """The lane's first slot from an instant on: its start, and the slot of each limit."""
    while True:
        found = [its.find(at) for its in callers]
        latest = max([start for start, _ in found])
        if latest == at:
            return at, tuple([slot for _, slot in found])
        at = latest


def take_back(
    setup: Setup,
    limits: tuple[Limit, ...],
    lane: tuple[int, ...],
    intervals: tuple[int, ...],
    seq: int,
    rows: tuple[tuple[int, ...], ...],
) -> tuple[tuple[Limit, ...], tuple[tuple[int, ...], ...]]:
    """give_back_lane.lua: the limits afterwards, and the slots that each limit of the lane has taken."""
    after, taken = list(limits), []
    for place, (number, interval) in enumerate(zip(lane, intervals)):
        state, mine = limits[number], list[int]()
        is_same = state.interval == interval or "interval unchecked" in setup.faults
        is_known = state.grid is not None and (state.grid <= seq or "serial unchecked" in setup.faults)
        for row in rows if is_same and is_known and state.last is not None else ():
            slot = row[place]
            overlaps = any(abs(slot - hole) < interval for hole in state.holes)
            if state.last is not None and slot <= state.last and ("overlap unseen" in setup.faults or not overlaps):
                state = state._replace(holes=tuple(sorted({*state.holes, slot})))
                mine.append(slot)
        after[number] = state
        taken.append(tuple(mine))
    return tuple(after), tuple(taken)
