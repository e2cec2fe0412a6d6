"""Waking an event loop from any thread."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


def logged(action: Callable[[], None]) -> None:
    """Run an action; its error goes to the log."""
    try:
        action()
    except Exception:
        logger.exception("global-rate: an action in the event loop failed")


class Waker:
    """Runs callbacks in the loop, at once, from any thread.

    kombu before 5.6 lets a callback from another thread wait up to a second; a socket pair wakes every version.

    Args:
        guard: runs what comes into the loop from outside, and decides which errors may leave it.
    """

    def __init__(self, guard: Callable[[Callable[[], None]], None] = logged) -> None:
        self.guard = guard
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._callbacks: deque[Callable[[], None]] = deque()
        #: Whether the loop has been woken for callbacks and has not begun to run them.
        self._is_awaited = False

    def attach(self, hub: Any) -> None:
        """Let the loop listen. A hub forgets its readers when it is reset, so this is repeated after each."""
        hub.add_reader(self._reader.fileno(), self._on_readable)

    def detach(self, hub: Any) -> None:
        """Take the callbacks out of the loop; what is still waiting is dropped."""
        hub.remove(self._reader.fileno())
        self._callbacks.clear()
        self._is_awaited = False

    def close(self) -> None:
        """Close the sockets."""
        self._reader.close()
        self._writer.close()

    def call(self, callback: Callable[[], None]) -> None:
        """Run `callback` in the next turn of the loop."""
        self._callbacks.append(callback)
        if not self._is_awaited:  # tasks that end together, in threads or greenlets, wake the loop once
            self._is_awaited = True
            self.wake()

    def wake(self) -> None:
        """End the loop's sleep."""
        with contextlib.suppress(OSError):  # full of wake-ups already, or closed
            self._writer.send(b"\0")

    def _on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)
        self._is_awaited = False  # before the count: what is added from here on wakes the loop again
        for _ in range(len(self._callbacks)):
            self.guard(self._callbacks.popleft())
