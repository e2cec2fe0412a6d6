"""The line of those that wait for a process of the pool, and our places in it.

Tasks without a limit go straight to the pool, and where more come than it can run they wait there. A limited task
that waited for a free process would then wait for ever, so it lines up with them: for the process first, and for
its slot once its turn has come, because a slot does not keep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class SemaphoreLine:
    """Places in the line of kombu's semaphore, by which Celery hands prefork processes out.

    Args:
        semaphore: a `LaxBoundedSemaphore`; first come, first served.

    Attributes:
        turns: processes that are kept for us.
        ready: called when a turn has come.
    """

    def __init__(self, semaphore: Any) -> None:
        self.ready: Callable[[], None] = lambda: None
        self._semaphore = semaphore
        self._life = object()
        self._waiting = 0
        self.turns = 0

    def line_up(self, places: int) -> None:
        """Have this many places, turns among them. One in the line cannot be left before its turn has come."""
        while self.turns and self.turns + self._waiting > places:
            self.turns -= 1
            self._semaphore.release()
        for _ in range(places - self.turns - self._waiting):
            self._waiting += 1
            self._semaphore.acquire(self._come, self._life)

    def take(self) -> None:
        """Use a turn, if there is one, for the task that is handed over next."""
        if self.turns:
            self.turns -= 1
            self._semaphore.value += 1

    def withdraw(self) -> None:
        """The task that was handed over has not gone: its process is free again."""
        self._semaphore.release()

    def clear(self) -> None:
        """Forget all places: Celery has cleared its semaphore."""
        self._life = object()
        self._waiting = self.turns = 0

    def _come(self, life: object) -> None:
        if life is self._life:
            self._waiting -= 1
            self.turns += 1
            self.ready()


class PoolQueue:
    """A place in the queue inside a pool that hands no processes out: threads, greenlets.

    The only way into that queue is with a task, which then starts some time after its slot. So it is one at a time,
    and only where other tasks wait there too.

    Args:
        free: the pool's processes without a task; negative by the number of tasks that wait.
        on_deck: how many of these are ours.

    Attributes:
        ready: never called; the scheduler looks again by itself.
    """

    def __init__(self, free: Callable[[], int], on_deck: Callable[[], int]) -> None:
        self.ready: Callable[[], None] = lambda: None
        self._free = free
        self._on_deck = on_deck
        self._places = 0

    @property
    def turns(self) -> int:
        """1 where a task may go into the queue, else 0."""
        return int(self._places > 0 > self._free() and self._on_deck() == 0)

    def line_up(self, places: int) -> None:
        """Have a place, if any is wanted."""
        self._places = places

    def take(self) -> None:
        """Use the turn for the task that is handed over next."""

    def withdraw(self) -> None:
        """The task that was handed over has not gone."""

    def clear(self) -> None:
        """Forget the place."""
        self._places = 0
