"""What the tasks have recorded on the Redis clock."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from .tasks import STARTS

#: Entries of a stream are stamped in whole milliseconds.
STAMP_S = 0.001


@dataclass(frozen=True)
class Start:
    """One start: its instant on the Redis clock in seconds, its task and that task's id, and the worker's name."""

    instant: float
    task: str
    task_id: str
    worker: str


@dataclass(frozen=True)
class Starts:
    """All starts, as a Redis has recorded them."""

    client: redis.Redis

    def now(self) -> float:
        """The Redis clock, in seconds."""
        seconds, microseconds = self.client.time()  # type: ignore[misc]
        return float(seconds + microseconds / 1e6)

    def of(self, task: str = "limited") -> list[Start]:
        """The starts of a task, in order."""
        entries = ((stamp, entry) for stamp, entry in self.client.xrange(STARTS))  # type: ignore[union-attr]
        starts = (Start(int(stamp.partition("-")[0]) / 1000, *entry.values()) for stamp, entry in entries)
        return [start for start in starts if start.task == task]

    def since(self, instant: float) -> list[Start]:
        """Those of `limited` from an instant on the Redis clock."""
        return [start for start in self.of() if start.instant >= instant]

    def longest_gap_s(self) -> float:
        """The longest time between two of `limited`, in seconds."""
        instants = [start.instant for start in self.of()]
        return max(later - earlier for earlier, later in zip(instants, instants[1:]))

    def count(self, task: str = "limited") -> int:
        """How many there are."""
        return len(self.of(task))
