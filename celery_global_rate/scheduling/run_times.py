"""How long tasks run, and with it how many of those that run now will end before long."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Sequence
from itertools import accumulate, islice
from math import sqrt

from ..limits.timing import HORIZON_S

#: Fewer run times than this promise nothing; more than that are forgotten.
KNOWN_RUNS = 10
MOST_RUNS = 40
#: A task is quick if it takes no longer than this, in seconds: another may wait on deck for its process. The second is
#: for limits that are all out of reach.
QUICK_S, FAR_QUICK_S = HORIZON_S / 10, HORIZON_S / 2
#: From the end of a task to the start of the next one in its process, in seconds, at the least.
GAP_S = 0.0005
#: Of more running tasks than this every second one is looked at, or every third: a look costs a microsecond for each.
MOST_AGES = 64


class RunTimes:
    """The run times of the last tasks, and what they promise.

    A running task ends like those of the last 40 that ran for longer than it has: the share of them that would have
    ended within some time is its chance to end within that time. Nothing is assumed about how run times are spread, so
    equal, random and mixed ones are all forecast as well as they can be.
    """

    def __init__(self) -> None:
        self._run_times_s: deque[float] = deque()
        self._sorted: list[float] = []
        #: Of the sorted run times, the sums of the first ones; empty if they are out of date.
        self._sums: list[float] = []
        self._mean_s = self._relative_variance = 0.0
        self._ended = float("-inf")

    def ran(self, run_time_s: float, now: float) -> None:
        """Learn the run time of a task, in seconds, that has ended now (monotonic seconds)."""
        run_time_s += GAP_S
        self._run_times_s.append(run_time_s)
        insort(self._sorted, run_time_s)
        if len(self._sorted) > MOST_RUNS:
            self._sorted.remove(self._run_times_s.popleft())
        self._sums = []
        self._ended = now

    def ends(self, ages_s: Sequence[float], within_s: float) -> tuple[float, float]:
        """How many tasks will end if each process begins a task as soon as it has ended one.

        Args:
            ages_s: for how long each running task has run, in seconds; 0 for a process without one.
            within_s: the time that they have for it, in seconds.

        Returns:
            What is to be expected, and its standard deviation.
        """
        known = self._sorted
        if len(known) < KNOWN_RUNS:
            return 0.0, 0.0
        self._look()
        sums, mean_s = self._sums, self._mean_s
        # After a task that ends, a process goes on for what is left of the time. Equal run times then lose half of one.
        lost = max(0.0, 1 - self._relative_variance) / 2
        ends = variance = 0.0
        step = -(-len(ages_s) // MOST_AGES) or 1
        for age_s in ages_s[::step]:
            first, last = bisect_right(known, age_s), bisect_right(known, age_s + within_s)
            if first == last:
                continue
            chance = (last - first) / (len(known) - first + 1)  # as if one more had run for ever: few promise little
            left_s = age_s + within_s - (sums[last] - sums[first]) / (last - first)
            more = max(0.0, left_s / mean_s - lost)
            ends += chance * (1 + more)
            variance += chance * (1 - chance) * (1 + more) ** 2 + chance * more * self._relative_variance
        return ends * step, sqrt(variance * step)

    @property
    def mean_s(self) -> float:
        """The mean of the run times, in seconds; 0 if none is known."""
        self._look()
        return self._mean_s

    def are_quick(self, quick_s: float = QUICK_S) -> bool:
        """Whether the last tasks were so short, in seconds, that one may wait on deck for a process."""
        last_s = islice(reversed(self._run_times_s), KNOWN_RUNS)
        return len(self._run_times_s) >= KNOWN_RUNS and max(last_s) <= quick_s + GAP_S

    def has_just_ended(self, now: float, quick_s: float = QUICK_S) -> bool:
        """Whether a task has ended a moment ago: no longer than a quick one takes, in seconds."""
        return now - self._ended <= quick_s

    def _look(self) -> None:
        known = self._sorted
        if known and not self._sums:
            self._sums = [0.0, *accumulate(known)]
            self._mean_s = self._sums[-1] / len(known)
            squares = sum([run_time_s * run_time_s for run_time_s in known]) / len(known)
            self._relative_variance = max(0.0, squares / self._mean_s**2 - 1)
