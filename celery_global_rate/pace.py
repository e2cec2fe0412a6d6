"""How many slots the pool can use before the horizon."""

from __future__ import annotations

from collections import deque

from .bucket import HORIZON_S

KNOWN_RUNS = 10
#: A task is quick, in seconds, if one may wait on deck for it.
QUICK_S = HORIZON_S / 10


class Pace:
    """The run times of the last tasks, and what they promise.

    Reserving for free processes only reaches a sixth of 1000/s with tasks of a millisecond, because each process
    could start many tasks before the horizon. Nothing is rounded up: a slot too many is a slot lost to the others.
    """

    def __init__(self) -> None:
        self._run_times_s: deque[float] = deque(maxlen=KNOWN_RUNS)
        self._ended = float("-inf")

    def ran(self, run_time_s: float, now: float) -> None:
        """Learn the run time of a task, in seconds, that has ended now (monotonic seconds)."""
        self._run_times_s.append(run_time_s)
        self._ended = now

    def starts(self, processes: int, oldest_s: float, within_s: float) -> int:
        """How many tasks the pool's processes can start one after the other.

        Args:
            processes: processes of the pool.
            oldest_s: how long the oldest task in the pool has been running, in seconds.
            within_s: the time they have for it, in seconds.
        """
        return processes * int(within_s / self._longest_s(oldest_s))

    def are_quick(self) -> bool:
        """Whether the last tasks were so short that one may wait on deck for a process."""
        return len(self._run_times_s) == KNOWN_RUNS and max(self._run_times_s) <= QUICK_S

    def has_just_ended(self, now: float) -> bool:
        """Whether a task has ended a moment ago."""
        return now - self._ended <= QUICK_S

    def _longest_s(self, oldest_s: float) -> float:
        if len(self._run_times_s) < KNOWN_RUNS:
            return float("inf")
        return max(max(self._run_times_s), oldest_s, 1e-6)
