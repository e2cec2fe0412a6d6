"""A caller that waits for a slot, in a thread or in an event loop."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import AcquireTimeout

if TYPE_CHECKING:
    from ..scheduling.lane import Lane
    from .terms import Terms

#: If the hub has not answered by so much later than it had to, it never will, in seconds.
LOST_S = 5.0


class Waiter(ABC):
    """One call.

    Args:
        terms: of its limiter.
        value: of its key, as a part of a Redis key; or None.
        cost: units of each limit.
        timeout_s: it gives up after so many seconds; None for never.

    Attributes:
        terms, value, cost: as above.
        deadline: monotonic seconds.
        lane: where it is held, once it is.
        is_over: whether it has its answer.
        error: why it has no slot; None if it has one.
    """

    __slots__ = ("_timeout_s", "cost", "deadline", "error", "is_over", "lane", "terms", "value")

    def __init__(self, terms: Terms, value: str | None, cost: int, timeout_s: float | None) -> None:
        self.terms, self.value, self.cost = terms, value, cost
        self._timeout_s = timeout_s
        self.deadline = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        self.lane: Lane | None = None
        self.is_over = False
        self.error: AcquireTimeout | None = None

    def grant(self) -> None:
        """It has its slot, now. Called in the hub."""
        self.is_over = True
        self._wake()

    def refuse(self, retry_after: float | None) -> None:
        """It has none, and the next may come so many seconds later. Called in the hub."""
        self.is_over = True
        self.error = AcquireTimeout(self.terms.name, self._timeout_s or 0.0, retry_after)
        self._wake()

    @abstractmethod
    def _wake(self) -> None:
        """Let the caller go on."""


class ThreadWaiter(Waiter):
    """A thread that waits."""

    __slots__ = ("_lock",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        """Wait for the answer."""
        longest_s = -1.0 if self._timeout_s is None else max(0.0, self._timeout_s) + LOST_S
        if not self._lock.acquire(timeout=min(longest_s, threading.TIMEOUT_MAX)):
            self.error = AcquireTimeout(self.terms.name, self._timeout_s or 0.0)

    def _wake(self) -> None:
        self._lock.release()


class TaskWaiter(Waiter):
    """A task of asyncio that waits.

    Args:
        answered: called in the hub when it has its answer.
        loop: the task's.
    """

    __slots__ = ("_answered", "future", "loop")

    def __init__(self, answered: Callable[[TaskWaiter], None], loop: AbstractEventLoop, *args: Any) -> None:
        super().__init__(*args)
        self._answered, self.loop = answered, loop
        self.future: Future[None] = loop.create_future()

    def _wake(self) -> None:
        self._answered(self)
