"""Which lanes there are, what may go wrong, and which errors are planted."""

from __future__ import annotations

from typing import NamedTuple

#: Errors that can be planted, and what they are.
FAULTS = {
    "one not booked": "the last limit of a lane does not book",
    "refused books": "a lane that gets nothing books the first of its limits",
    "hole kept": "a hole that is booked stays a hole",
    "holes overlap": "holes are left from before S + T as well",
    "slot older": "a slot may be older than its start by more than the burst, and is usable as long",
    "give-back twice": "a give-back is sent twice",
    "used and given back": "a give-back names a slot that was used",
    "overlap unseen": "a slot that is given back becomes a hole, whatever overlaps it",
    "serial unchecked": "slots from before a loss of the state are taken back",
    "interval unchecked": "slots of another limit are taken back",
    "holes stay": "the holes stay when the clock steps back",
    "step unseen": "a limit does not see that the clock stepped back",
    "missed not renewed": "a slot that was missed counts as in hand forever",
}


class Events(NamedTuple):
    """How often each thing may happen: reservations given back, states lost, limits changed, the clock stepped."""

    returns: int = 0
    amnesia: int = 0
    change: int = 0
    step_back: int = 0
    step_forward: int = 0


class Setup(NamedTuple):
    """Limits and lanes. Times in ticks.

    Attributes:
        lanes: for each the limits that it passes, by number.
        held: for each how many tasks wait in it.
        intervals: of each limit T, and what it is changed to.
        bursts: of each limit.
        horizon: H, how far ahead slots are given out.
        grace: D, how long after its start a slot may be used.
        age: how much older than the burst allows a slot may be at its start; it is usable for that much less.
        slowest: a give-back takes no longer than this, or is lost.
        step: how far the clock of Redis is stepped.
        events: what may happen.
        faults: what is planted.
    """

    lanes: tuple[tuple[int, ...], ...] = ((0,), (0, 1))
    held: tuple[int, ...] = (1, 2)
    intervals: tuple[tuple[int, ...], ...] = ((2,), (3,))
    bursts: tuple[int, ...] = (1, 1)
    horizon: int = 3
    grace: int = 2
    age: int = 1
    slowest: int = 2
    step: int = 3
    events: Events = Events()
    faults: frozenset[str] = frozenset()

    @property
    def tasks(self) -> int:
        """How many are held at the start."""
        return sum(self.held)

    def is_crossed(self, limit: int) -> bool:
        """Whether several lanes pass a limit."""
        return sum(limit in lane for lane in self.lanes) > 1

    def reach(self, limit: int, interval: int) -> int:
        """How far back its burst reaches."""
        return (self.bursts[limit] - 1) * interval

    def oldest(self, limit: int) -> int:
        """No slot of use is older than this, whatever T is."""
        return self.reach(limit, max(self.intervals[limit])) + self.age
