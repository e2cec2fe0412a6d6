"""What must be true of the model at each moment, and what must be remembered of the past to check it.

The window bound is checked by buckets that leak: each start fills them by a slot, each tick drains what the limit
allows in a tick. A window of length w with n starts lies above ``b + (w + D + R)/T`` exactly if the fullest bucket is
above ``b + (D + R)/T``. What the documentation allows for a mishap is added to the size of the buckets there are; when
the mishap is over, a new one begins, for the windows that have nothing to do with it.
"""

from __future__ import annotations

from math import ceil, lcm
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .setup import Setup
    from .state import Reservation


class Windows(NamedTuple):
    """All windows that begin after a moment: how full the fullest is, and how full it may be, in parts of a slot."""

    level: int
    size: int


class Judge(NamedTuple):
    """The memory of a history.

    Attributes:
        windows: what to compare with the bound.
        used: slots that were used, as old as they may come again.
        era: how often Redis has lost its memory or its clock was stepped: slots before and after are not the same.
        version: the highest override that this Redis has seen: its limit is in force.
        past: T of a limit that was in force; slots of it may still be in hand.
        unsettled: ticks until all that is due to a mishap is over.
        back: how full the window is that begins with the return from an outage; it may save what is not used in it.
        solo: how full the windows are with starts that had no slot, n + w/T at the most.
        starts: tasks started.
        wrong: what is not true, in words.
    """

    windows: tuple[Windows, ...] = ()
    used: tuple[int, ...] = ()
    era: int = 0
    version: int = 0
    past: int = 0
    unsettled: int = 0
    back: int | None = None
    solo: int = 0
    starts: int = 0
    wrong: str = ""

    @classmethod
    def of(cls, setup: Setup) -> Judge:
        judge = cls()
        return judge._replace(windows=(judge._fresh(setup),))

    # what happens

    def tick(self, setup: Setup, alone: int) -> Judge:
        """Time passes, while so many workers start tasks by themselves."""
        drained = slot(setup) // self._interval(setup)
        solo = max(0, self.solo - drained * alone // setup.workers)
        if alone < setup.workers:  # the others have all that the limit allows
            drained += drained * alone // setup.workers
        windows = tuple([Windows(max(0, level - drained), size) for level, size in self.windows])
        unsettled = max(self.unsettled - 1, int(alone > 0), 0)
        used = tuple([used - 1 for used in self.used if used > -oldest(setup)])
        judge = self._replace(unsettled=unsettled, used=used, solo=solo)
        if self.back is not None:  # until a burst has been saved again
            back = self.back - drained
            judge = judge._replace(back=back if back > -setup.burst * slot(setup) else None)
        if self.unsettled and not unsettled:
            judge = judge._replace(past=0)
            windows += (judge._fresh(setup),)
        return judge._replace(windows=windows)._relevant(setup)

    def started(self, setup: Setup, reserved: Reservation | None) -> Judge:
        """A task is started, in the first slot of a reservation or without one."""
        wrong: list[str] = []
        part = slot(setup)
        used, back, solo = self.used, self.back, self.solo
        if reserved is None:
            solo += part
            if solo > part * setup.workers:
                wrong.append("a worker that is cut off starts too many")
        elif reserved.era == self.era:
            instant = reserved.slots[0]
            due = max(instant, reserved.due)
            if instant in used:
                wrong.append(f"the slot {instant} is used twice")
            if not due <= 0 <= due + setup.grace + setup.timeout:
                wrong.append(f"the slot {instant} is used outside its time")
            used = (*used, instant)
        windows = tuple([Windows(level + part, size) for level, size in self.windows])
        if any(level > size for level, size in windows):
            wrong.append("a window holds too many starts")
        if back is not None:
            back += part
            if back > self._size(setup, setup.workers):
                wrong.append("the return from an outage brings too many starts")
        judge = self._replace(windows=windows, used=used, back=back, solo=solo, starts=self.starts + 1)
        return judge._relevant(setup)._replace(wrong=self.wrong or "; ".join(wrong))

    def heard(self, setup: Setup, version: int) -> Judge:
        """Redis has heard of an override: its limit is in force."""
        return self._limited(setup, version) if version > self.version else self

    def refused(self, setup: Setup, last: int) -> Judge:
        """Redis has given no slot, since the last one lies ahead."""
        if last > setup.horizon:
            return self._replace(wrong="the bucket stalls: its last slot is beyond the horizon")
        return self

    def forgot(self, setup: Setup) -> Judge:
        """Redis has lost its memory: a full bucket and the slots in hand, b + H/T more."""
        extra = slot(setup) * setup.burst + slot(setup) * setup.horizon // self._interval(setup)
        judge = self._new_era()._allow(setup, extra, after(setup))
        return judge._limited(setup, 0) if judge.version else judge

    def stepped(self, setup: Setup, ticks: int) -> Judge:
        """Redis' clock was stepped. Forward, the bucket is full; back, slots in hand may be used late: H/T."""
        extra = slot(setup) * setup.horizon // self._interval(setup) + slot(setup) * setup.burst * (ticks > 0)
        return self._new_era()._allow(setup, extra, after(setup) + max(0, -ticks))

    def crashed(self, setup: Setup, lost: tuple[Reservation, ...]) -> Judge:
        """A worker was killed, and these slots with it: those count that are still to come."""
        ahead = sum([instant > 0 for reserved in lost if reserved.era == self.era for instant in reserved.slots])
        if ahead > max(1, ceil(setup.horizon / min(setup.intervals))):
            return self._replace(wrong=f"{ahead} slots are lost with a worker")
        return self

    def goes_alone(self, setup: Setup) -> Judge:
        """A worker goes on by itself: a start more, for the first one comes at any time."""
        return self._allow(setup, slot(setup), 1)

    def returned(self) -> Judge:
        """All were on their own, and Redis has answered the first of them: one slot and no burst, beside the others."""
        return self._replace(back=0)

    # the bound

    def _interval(self, setup: Setup) -> int:
        now = setup.intervals[self.version]
        return min(now, self.past) if self.past else now

    def _relevant(self, setup: Setup) -> Judge:
        """Without what the tasks that are left cannot make wrong."""
        most = slot(setup) * (setup.tasks - self.starts)
        windows = tightest(self.windows, most)
        back = None if self.back is None or self.back + most <= self._size(setup, setup.workers) else self.back
        solo = 0 if self.solo + most <= slot(setup) * setup.workers else self.solo
        if not windows and most <= slot(setup) * setup.burst:
            return self._replace(windows=(), back=back, solo=solo, unsettled=0, past=0)
        return self._replace(windows=windows, back=back, solo=solo)

    def _size(self, setup: Setup, slots: int) -> int:
        return slot(setup) * slots + (setup.grace + setup.timeout) * slot(setup) // self._interval(setup)

    def _fresh(self, setup: Setup) -> Windows:
        return Windows(0, self._size(setup, setup.burst))

    def _allow(self, setup: Setup, extra: int, ticks: int) -> Judge:
        windows = tuple([Windows(level, size + extra) for level, size in self.windows])
        return self._replace(windows=windows, unsettled=max(self.unsettled, ticks))

    def _limited(self, setup: Setup, version: int) -> Judge:
        """Slots of the old limit may be in hand; a faster one counts from the last slot on, for a burst at the most."""
        before = self._interval(setup)
        judge = self._replace(version=version, past=before)
        longer = max(0, before - setup.intervals[version])
        faster = judge._fresh(setup).size - self._fresh(setup).size + setup.burst * slot(setup) * longer // before
        return judge._allow(setup, faster, after(setup))

    def _new_era(self) -> Judge:
        return self._replace(era=self.era + 1, used=())


def slot(setup: Setup) -> int:
    """A slot in parts that every interval and a share for each worker divide."""
    return lcm(*setup.intervals) * setup.workers


def after(setup: Setup) -> int:
    """Ticks until no slot can be used that was given out now."""
    return setup.horizon + setup.grace + setup.timeout + 1


def oldest(setup: Setup) -> int:
    """No slot is used that is as old."""
    return (setup.burst - 1) * max(setup.intervals) + setup.grace + setup.slowest + setup.timeout + 1


def tightest(windows: tuple[Windows, ...], most: int) -> tuple[Windows, ...]:
    """Without those for which a later one says more, or that so many parts of a slot cannot fill."""
    kept: list[Windows] = []
    for level, size in reversed(windows):
        if size - level < (kept[-1].size - kept[-1].level if kept else most):
            kept.append(Windows(level, size))
    return tuple(reversed(kept))
