"""What must be true of each limit at each moment, and what must be remembered of the past to check it.

Two things: no window holds more than ``b + (w + D)/T`` starts, seen by buckets that leak, as in the model of one
bucket; and what that follows from: booked slots and holes of a limit lie at least T apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import NamedTuple

from ..judge import Windows, tightest
from .limits import Limit, Slot
from .setup import Setup


class Witness(NamedTuple):
    """The memory of one limit.

    Attributes:
        windows: what to compare with the bound.
        booked: slots that were given out and did not come back, with the T of the caller; none from before a loss of
            the state or a step of the clock.
        changed: whether T is the second one.
        past: T of the limit before; slots of it may still be in hand.
        unsettled: ticks until all that is due to a mishap is over.
    """

    windows: tuple[Windows, ...]
    booked: tuple[tuple[int, int], ...] = ()
    changed: int = 0
    past: int = 0
    unsettled: int = 0

    @classmethod
    def of(cls, setup: Setup, limit: int) -> Witness:
        witness = cls(())
        return witness._replace(windows=(witness._fresh(setup, limit),))

    def tick(self, setup: Setup, limit: int) -> Witness:
        """Time passes."""
        drained = part(setup, limit) // self.interval(setup, limit)
        windows = tuple([Windows(max(0, level - drained), size) for level, size in self.windows])
        unsettled = max(0, self.unsettled - 1)
        witness = self._replace(unsettled=unsettled)
        if self.unsettled and not unsettled:
            witness = witness._replace(past=0)
            windows += (witness._fresh(setup, limit),)
        booked = tuple([(us - 1, interval) for us, interval in self.booked])
        return witness._replace(windows=windows, booked=booked)

    def started(self, setup: Setup, limit: int) -> tuple[Witness, bool]:
        """A task is started that passes this limit; whether that is one too many."""
        mine = part(setup, limit)
        windows = tuple([Windows(level + mine, size) for level, size in self.windows])
        return self._replace(windows=windows), any(level > size for level, size in windows)

    def given(self, setup: Setup, limit: int, slots: list[int], state: Limit) -> tuple[Witness, bool]:
        """The limit has given these slots out; whether something overlaps."""
        interval = setup.intervals[limit][self.changed]
        booked = tuple(sorted([*self.booked, *((us, interval) for us in slots)]))
        witness = self._replace(booked=booked)
        holes = [(us, state.interval) for us in state.holes] if state.interval == interval else []
        taken = sorted([*booked, *holes])
        return witness, any(later - us < mine for (us, _), (later, mine) in zip(taken, taken[1:]))

    def returned(self, slots: tuple[int, ...]) -> tuple[Witness, bool]:
        """The limit has taken these back; whether one of them was not given out, or has come back before."""
        left = list(self.booked)
        for us in slots:
            mine = next((it for it in left if it[0] == us), None)
            if mine is None:
                return self, True
            left.remove(mine)
        return self._replace(booked=tuple(left)), False

    def forgot(self, setup: Setup, limit: int) -> Witness:
        """The limit has lost its state: b + H/T more."""
        extra = part(setup, limit) * setup.bursts[limit] + self._horizon(setup, limit)
        return self._replace(booked=())._allow(extra, after(setup))

    def stepped(self, setup: Setup, limit: int, ticks: int) -> Witness:
        """Redis' clock was stepped. Forward, the bucket is full; back, slots in hand may be used late: H/T."""
        extra = self._horizon(setup, limit) + part(setup, limit) * setup.bursts[limit] * (ticks > 0)
        booked = tuple([(us - ticks, interval) for us, interval in self.booked])
        return self._replace(booked=booked)._allow(extra, max(self.unsettled, after(setup)) + max(0, -ticks))

    def limited(self, setup: Setup, limit: int) -> Witness:
        """Slots of the old limit may be in hand; a faster one counts from the last slot on, for a burst at the most."""
        before, now = setup.intervals[limit]
        witness = self._replace(changed=1, past=before)
        saved = setup.bursts[limit] * part(setup, limit) * max(0, before - now) // before
        faster = witness._fresh(setup, limit).size - self._fresh(setup, limit).size + saved
        return witness._allow(faster, after(setup))

    def interval(self, setup: Setup, limit: int) -> int:
        """The shortest T that slots in use may have."""
        now = setup.intervals[limit][self.changed]
        return min(now, self.past) if self.past else now

    def without_past(self, before: int, in_use: set[int]) -> Witness:
        """Without booked slots before an instant, except those that may come back."""
        return self._replace(booked=tuple([it for it in self.booked if it[0] >= before or it[0] in in_use]))

    def relevant(self, most: int) -> Witness:
        """Without what so many parts of a slot cannot make wrong."""
        return self._replace(windows=tightest(self.windows, most))

    def _horizon(self, setup: Setup, limit: int) -> int:
        return part(setup, limit) * setup.horizon // self.interval(setup, limit)

    def _fresh(self, setup: Setup, limit: int) -> Windows:
        mine = part(setup, limit)
        return Windows(0, mine * setup.bursts[limit] + setup.grace * mine // self.interval(setup, limit))

    def _allow(self, extra: int, ticks: int) -> Witness:
        windows = tuple([Windows(level, size + extra) for level, size in self.windows])
        return self._replace(windows=windows, unsettled=max(self.unsettled, ticks))


class Judge(NamedTuple):
    """The memory of a history: of each limit, the tasks that were started, and what is not true, in words."""

    witnesses: tuple[Witness, ...]
    starts: int = 0
    wrong: str = ""

    @classmethod
    def of(cls, setup: Setup) -> Judge:
        return cls(tuple([Witness.of(setup, limit) for limit in range(len(setup.intervals))]))

    def tick(self, setup: Setup) -> Judge:
        """Time passes."""
        return self.put({limit: it.tick(setup, limit) for limit, it in enumerate(self.witnesses)})._relevant(setup)

    def started(self, setup: Setup, lane: tuple[int, ...]) -> Judge:
        """A task of a lane is started."""
        judge = self
        for limit in lane:
            witness, is_wrong = self.witnesses[limit].started(setup, limit)
            judge = judge.put({limit: witness}, "a window holds too many starts" if is_wrong else "")
        return judge._replace(starts=self.starts + 1)._relevant(setup)

    def reserved(
        self,
        setup: Setup,
        lane: tuple[int, ...],
        before: tuple[Limit, ...],
        limits: tuple[Limit, ...],
        slots: Sequence[Slot],
    ) -> Judge:
        """A lane was given these slots: all of its limits have booked them, or none has, and nothing overlaps."""
        judge = self
        for place, limit in enumerate(lane):
            mine, witness = [slot.row[place] for slot in slots], judge.witnesses[limit]
            if before[limit].has_stepped:  # what was booked before counts on the clock as it was
                witness = witness._replace(booked=())
            witness, overlaps = witness.given(setup, limit, mine, limits[limit])
            wrong = [
                "booked slots or holes overlap" if overlaps else "",
                "not all limits have booked, or none" if not is_booked(before[limit], limits[limit], mine) else "",
                "a limit stalls: its last slot is beyond the horizon"
                if (limits[limit].last or 0) > setup.horizon
                else "",
            ]
            judge = judge.put({limit: witness}, "; ".join(filter(None, wrong)))
        return judge

    def returned(self, lane: tuple[int, ...], taken: tuple[tuple[int, ...], ...]) -> Judge:
        """The limits of a lane have taken slots back."""
        judge = self
        for limit, slots in zip(lane, taken):
            witness, is_wrong = judge.witnesses[limit].returned(slots)
            judge = judge.put({limit: witness}, "a slot is free that is another's" if is_wrong else "")
        return judge

    def put(self, witnesses: dict[int, Witness], wrong: str = "") -> Judge:
        """With these instead."""
        all_ = tuple([witnesses.get(limit, it) for limit, it in enumerate(self.witnesses)])
        return self._replace(witnesses=all_, wrong=self.wrong or wrong)

    def _relevant(self, setup: Setup) -> Judge:
        left = setup.tasks - self.starts
        return self.put({n: it.relevant(part(setup, n) * left) for n, it in enumerate(self.witnesses)})


def is_booked(before: Limit, after: Limit, slots: list[int]) -> bool:
    """Whether a limit has booked these slots, and nothing else if there are none."""
    if slots:
        is_known = after.last is not None and max(slots) <= after.last
        return is_known and after.seq > before.seq and not {*slots} & {*after.holes}
    return after.seq == before.seq and after.last in (before.last, before.lead)


def part(setup: Setup, limit: int) -> int:
    """A slot of a limit in parts that each of its intervals divides."""
    return lcm(*setup.intervals[limit])


def after(setup: Setup) -> int:
    """Ticks until no slot can be used that was given out now."""
    return setup.horizon + setup.grace + 1
