"""What the tasks have recorded on the Redis clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from .tasks import STARTS


@dataclass(frozen=True)
class Start:
    """One start.

    Attributes:
        instant: of the task's first line, on the Redis clock, in seconds.
        task: its name.
        task_id: its id.
        worker: the worker's name.
        released: when the worker handed it to its pool, on the clock that all containers share, in monotonic seconds.
    """

    instant: float
    task: str
    task_id: str
    worker: str
    released: float


@dataclass(frozen=True)
class Starts:
    """All starts, as a Redis has recorded them."""

    client: redis.Redis

    def now(self) -> float:
        """The Redis clock, in seconds."""
        seconds, microseconds = self.client.time()
        return float(seconds + microseconds / 1e6)

    def of(self, task: str = "limited") -> list[Start]:
        """The starts of a task, in order."""
        entries: list[Any] = self.client.xrange(STARTS) or []
        return [
            Start(
                int(stamp.partition("-")[0]) / 1000,
                entry["task"],
                entry["id"],
                entry["worker"],
                float(entry["released"]),
            )
            for stamp, entry in entries
            if entry["task"] == task
        ]

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
