"""The line of those that wait for a process of the pool, and our places in it.

Tasks without a limit go straight to the pool, and wait there if more come than it can run. A limited task that waited
for a free process would then wait forever, so it lines up with them: first for the process, and for its slot once its
turn has come, because a slot cannot be kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

#: The wait for a process is a moving average of about this many claims.
CLAIMS_KNOWN = 5
#: Others wait in a queue, although nobody does now, if somebody did so long ago, in seconds: the greenlet that takes
#: messages waits there itself, and is away from it between two of them.
MOMENT_S = 0.1


class SemaphoreLine:
    """Places in the line of kombu's semaphore, by which Celery assigns prefork processes.

    A limited task lines up when it comes, as it would without a limit. When its turn comes and there is no slot, it
    lets the others pass, and stays in front: once it has a slot, the next process is its own.

    Args:
        semaphore: a `LaxBoundedSemaphore`; first come, first served.
        monotonic: the clock, in seconds.

    Attributes:
        turns: processes that are kept for us.
        in_front: places whose turn has come. Once a process is claimed for it, such a place takes the next one.
        wait_s: how long a claim has taken of late, in seconds.
        ready: called when a turn has come.
    """

    def __init__(self, semaphore: Any, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.ready: Callable[[], None] = lambda: None
        self._semaphore = semaphore
        self._monotonic = monotonic
        self.wait_s = 0.0
        self._life = object()
        self.turns = self.in_front = self._waiting = self._claims = self._wanted = 0

    def line_up(self, places: int, wanted: int) -> None:
        """Have this many places, turns among them, and claim processes for those in front.

        Args:
            places: of tasks that wait, whether they have a slot or not. One cannot leave before its turn has come.
            wanted: processes that we could use at once.
        """
        self._wanted = wanted
        while self.turns > wanted:
            self.turns -= 1
            self.in_front += 1
            self._semaphore.release()
        while self._claims < self.in_front and self.turns + self._claims < wanted:
            self._claims += 1
            self._acquire_next(partial(self._claimed, self._life, self._monotonic()))
        self.in_front = max(self._claims, min(self.in_front, places - self._waiting - self.turns))
        for _ in range(places - self._waiting - self.in_front - self.turns):
            self._waiting += 1
            self._semaphore.acquire(self._come, self._life)

    def take(self) -> None:
        """Use a turn, if there is one, for the task that is released next."""
        if self.turns:
            self.turns -= 1
            # Not release(): that would serve the next in line. Celery's acquire for this task takes it back at once.
            self._semaphore.value += 1

    def withdraw(self) -> None:
        """The task that was released has not gone: its process is free again."""
        self._semaphore.release()

    def clear(self) -> None:
        """Forget all places: Celery has cleared its semaphore."""
        self._life = object()
        self.turns = self.in_front = self._waiting = self._claims = self._wanted = 0

    def _acquire_next(self, callback: Callable[[], None]) -> None:
        """Acquire the semaphore before all that wait for it."""
        if self._semaphore.value > 0:
            self._semaphore.acquire(callback)
        else:
            self._semaphore._waiting.appendleft((callback, (), {}))

    def _come(self, life: object) -> None:
        if life is not self._life:
            self._semaphore.release()
            return
        self._waiting -= 1
        if self.turns + self._claims < self._wanted:
            self.turns += 1
            self.ready()
            return
        self.in_front += 1
        self._semaphore.release()
        if self.in_front == 1:
            self.ready()  # a slot is of use now

    def _claimed(self, life: object, since: float) -> None:
        if life is not self._life:
            self._semaphore.release()
            return
        self._claims -= 1
        self.in_front -= 1
        self.turns += 1
        self.wait_s += (self._monotonic() - since - self.wait_s) / CLAIMS_KNOWN
        self.ready()


class PoolQueue:
    """A place in the queue inside a pool that does not assign processes: threads, greenlets.

    The only way into that queue is with a task, so a limited one goes there in its slot, and waits as all others do.

    Args:
        free: the pool's processes without a task; negative by the number of tasks that wait.
        on_deck: how many of these are ours.
        most: how many of ours may wait there.
        monotonic: the clock, in seconds.

    Attributes:
        in_front: always 0: no process is kept, so nobody has to be let past.
        wait_s: always 0: what is released is in the queue at once.
        ready: called when there are places at last: a slot may have been due before.
    """

    in_front = 0
    wait_s = 0.0

    def __init__(
        self,
        free: Callable[[], int],
        on_deck: Callable[[], int],
        most: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ready: Callable[[], None] = lambda: None
        self._free = free
        self._on_deck = on_deck
        self._most = most
        self._monotonic = monotonic
        self._places = 0
        self._crowded_at = float("-inf")

    @property
    def turns(self) -> int:
        """How many tasks may go into the queue in their slots, which nobody has to announce."""
        return max(0, min(self._places, self._most() - self._on_deck())) if self._is_crowded else 0

    def line_up(self, places: int, wanted: int) -> None:
        """Have so many places. Nothing is claimed ahead of a slot, so what is wanted by now makes no difference."""
        turns, self._places = self.turns, places
        if not turns and self.turns:
            self.ready()

    def take(self) -> None:
        """Use the turn for the task that is released next."""

    def withdraw(self) -> None:
        """The task that was released has not gone."""

    def clear(self) -> None:
        """Forget the places."""
        self._places = 0

    @property
    def _is_crowded(self) -> bool:
        """Whether others wait in the queue, or did a moment ago. Nobody does while a process is free."""
        free, now = self._free(), self._monotonic()
        if -free > self._on_deck():
            self._crowded_at = now
        return free <= 0 and now - self._crowded_at <= MOMENT_S
