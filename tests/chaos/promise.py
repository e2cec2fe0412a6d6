"""What a run with faults and changes of its limit may start, and has used."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.windows import since

#: D, and R as docs/guarantees computes with it, in seconds.
GRACE_S, UNCERTAINTY_S = 0.025, 0.010
SLACK_S = GRACE_S + UNCERTAINTY_S


@dataclass(frozen=True)
class Extra:
    """Starts that a fault may cost, in windows that touch its time.

    Attributes:
        begin, end: monotonic seconds.
        starts: how many.
    """

    begin: float
    end: float
    starts: float


class Limits:
    """The rate in force over the time of a run.

    Args:
        changes: instants in monotonic seconds, sorted, and the rate a second from each on. The first: before, too.
    """

    def __init__(self, changes: Sequence[tuple[float, float]]) -> None:
        self.instants, self.rates = zip(*changes)
        assert list(self.instants) == sorted(self.instants), "two changes at once"
        lengths = [later - earlier for earlier, later in zip(self.instants, self.instants[1:])]
        self._slots = list(itertools.accumulate((r * w for r, w in zip(self.rates, lengths)), initial=0.0))

    def _index(self, instant: float) -> int:
        return max(0, bisect_right(self.instants, instant) - 1)

    def slots(self, instant: float) -> float:
        """How many fit between the first change and an instant."""
        index = self._index(instant)
        return self._slots[index] + (instant - self.instants[index]) * self.rates[index]

    def rate(self, instant: float) -> float:
        """That of an instant."""
        return self.rates[self._index(instant)]


class RatesInForce:
    """The rates that may be in force for limits that are set together.

    Args:
        at: monotonic seconds.
        rates: a second, of each limit, as they are declared.
        bursts: of each limit.
    """

    def __init__(self, at: float, rates: tuple[int, ...], bursts: Sequence[int]) -> None:
        self._bursts = bursts
        self._changes = [[(at, float(rate))] for rate in rates]
        #: What may be in force: several where no worker has confirmed a change.
        self.rates = {rates}

    def asked(self, at: float, rates: tuple[int, ...]) -> None:
        """Other rates are about to be set: from now on the faster of each two counts.

        A burst is saved in intervals of the limit that spends it: with a faster one, b - 1 more fit before now.
        """
        self.rates.add(rates)
        for changes, burst, rate in zip(self._changes, self._bursts, map(max, zip(*self.rates))):
            earliest = at - (burst - 1) / rate if rate > changes[-1][1] else at
            changes.append((max(earliest, changes[-1][0]), float(rate)))

    def confirmed(self, at: float, rates: tuple[int, ...]) -> None:
        """These rates are in force from an instant on, and no others."""
        self.rates = {rates}
        for changes, rate in zip(self._changes, rates):
            changes.append((at, float(rate)))

    def limits(self, index: int) -> Limits:
        """The rate of one limit over the time so far."""
        return Limits(self._changes[index])


def worst_window(
    releases: Sequence[float], limits: Limits, extras: Sequence[Extra], burst: int = 1, slack_s: float = SLACK_S
) -> tuple[float, float]:
    """By how many starts the worst window exceeds what is promised; 0 or less where the promise is kept.

    A release at t spends a slot that fell due between t - D - R and t. So a window from s to t holds at most b more
    than the slots that fit between s - D - R and t, and what each fault that touches it may cost.
    Both are sums that grow along the run, so one pass sees every window.

    Args:
        releases: monotonic seconds, sorted.
        limits: the rate over the time.
        extras: of the faults.
        burst: b.
        slack_s: D + R, of the slowest rate, in seconds.

    Returns:
        The excess, in starts, and the instant at which the worst window ends.
    """
    begins, ends = sorted((it.begin, it.starts) for it in extras), sorted((it.end, it.starts) for it in extras)
    begun, ended = ([0.0, *itertools.accumulate(starts for _, starts in its)] for its in (begins, ends))
    smallest, worst, at = float("inf"), -float("inf"), 0.0
    for index, instant in enumerate(releases):
        over = ended[bisect_left(ends, (instant, 0.0))]
        smallest = min(smallest, index - limits.slots(instant - slack_s) - over)
        so_far = begun[bisect_right(begins, (instant, float("inf")))]
        excess = index - limits.slots(instant) - so_far - smallest + 1 - burst
        if excess > worst:
            worst, at = excess, instant
    return worst, at


def use(releases: Sequence[float], limits: Limits, spells: Sequence[tuple[float, float]]) -> float:
    """The share of the slots that were used in spells without a fault; where there are none, all that there were."""
    slots = sum(limits.slots(end) - limits.slots(begin) for begin, end in spells)
    return sum(len(since(releases, begin, end)) for begin, end in spells) / slots if spells else 1.0


def recovery_s(releases: Sequence[float], rate: float, begin: float, over: float, end: float) -> float:
    """How long after a fault is over the last gap ends that is longer than five intervals and a quarter of a second.

    Args:
        releases: monotonic seconds, sorted.
        rate: a second.
        begin: of the fault, monotonic seconds.
        over: when nothing was broken any more.
        end: when the next fault begins.
    """
    before = [instant for instant in releases if instant < begin][-1:]
    near = [*before, *since(releases, begin, end), end]  # the next fault ends a gap that would last on
    gaps = [later for earlier, later in zip(near, near[1:]) if later - earlier > max(0.25, 5 / rate)]
    return max(0.0, max(gaps, default=over) - over)
