"""The pool of the scheduler, which here are the callers that wait: a start lets one of them go on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from .waiter import Waiter

#: A caller needs no process: so many may go on at once, as one call to Redis gives out.
MOST = 1000


class NoLine:
    """Nobody waits for a process."""

    turns = in_front = 0
    wait_s = 0.0


class Callers:
    """A pool that always has room."""

    processes = free = MOST
    has_deck = False
    on_deck = 0
    line = NoLine()
    started: Collection[float] = ()

    def line_up(self, places: int, wanted: int) -> None:
        """There is no line."""

    def start(self, request: Waiter, failed: Callable[[Exception], None]) -> None:
        """Let a caller go on."""
        request.grant()

    def has_accepted(self, request: Waiter) -> bool:
        """Whether it has gone on."""
        return request.is_over

    def is_gone(self, request: Waiter) -> bool:
        """Those that give up are withdrawn at once."""
        return False

    def may_be_gone(self, requests: Iterable[Waiter]) -> bool:
        """Likewise."""
        return False

    def dismiss(self, request: Waiter) -> bool:
        """Likewise."""
        return True
