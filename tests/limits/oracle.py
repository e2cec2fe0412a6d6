"""What a limit must answer: slots on the real line, in exact fractions of a microsecond, from the spec alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import takewhile
from math import floor
from typing import NamedTuple

from celery_global_rate.limits.limit import Limit

SLOTS_PER_CALL = 1000


class Answer(NamedTuple):
    """The first slot (or the next one to be free), how many from there on, the serial, and how many workers wait."""

    first: Fraction
    count: int  # type: ignore[assignment]  # hides the method of tuples, which is not needed
    seq: int
    waiting: int


def interval(limit: Limit) -> Fraction:
    """T in microseconds."""
    return limit.interval_us + Fraction(limit.interval_ps, 1_000_000)


@dataclass
class Oracle:
    """One limit, or several that are declared for one bucket. `last` is S; `until` says how long a worker waits."""

    horizon_us: int
    patience_us: int
    last: Fraction | None = None
    lead: int = 0
    seq: int = 0
    until: dict[str, int] = field(default_factory=dict)

    def next_slot(self, now: int, limit: Limit) -> Fraction:
        """An interval after the last slot, or `burst - 1` of them before now: the later of the two."""
        saved = now - (limit.burst - 1) * interval(limit)
        last = self._last(now)
        return saved if last is None else max(last + interval(limit), saved)

    def reserve(self, now: int, limit: Limit, wanted: int, worker: str) -> Answer:
        """The slots up to the horizon: not over 1000, and not over twice the fair share of these, but one at least."""
        self.last = self._last(now)
        step, first = interval(limit), self.next_slot(now, limit)
        slots = (first + k * step for k in range(SLOTS_PER_CALL))
        free = list(takewhile(lambda slot: slot <= now + self.horizon_us, slots))
        longest = self.patience_us + 2 * self.horizon_us
        self.until = {who: end for who, end in self.until.items() if now < end <= now + longest and who != worker}
        waiting = 1 + len(self.until)
        granted = free[: min(wanted, max(1, floor(Fraction(2 * len(free), waiting))))]
        if granted:
            self._book(now, granted[-1], max(self.seq + 1, now))
        enters = floor(first + len(granted) * step) - self.horizon_us
        self.until[worker] = min(max(now, enters), now + self.patience_us) + 2 * self.horizon_us
        return Answer(first, len(granted), self.seq if granted else 0, waiting)

    def give_back(self, now: int, limit: Limit, count: int, seq: int) -> bool:
        """The last `count` slots become free, unless something was booked since, or the key was lost."""
        last = self._last(now)
        if last is None or seq != self.seq:
            return False
        self._book(now, last - count * interval(limit), seq + 1)
        return True

    def lose(self) -> None:
        """The keys are gone."""
        self.last, self.seq, self.until = None, 0, {}

    def _book(self, now: int, last: Fraction, seq: int) -> None:
        self.last, self.lead, self.seq = last, max(0, floor(last) - now), seq

    def _last(self, now: int) -> Fraction | None:
        """S. Further ahead of the clock than when it was written, the clock stepped back: then as far ahead as it was.

        The lead is kept in whole microseconds and the remainder of S stays, under a microsecond on the slow side.
        """
        if self.last is None or floor(self.last) - now <= self.lead:
            return self.last
        return now + self.lead + self.last % 1
