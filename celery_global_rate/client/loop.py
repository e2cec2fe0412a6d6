"""A small event loop: sockets, and the instants at which something is due."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from typing import Any

from ..storage.waker import Waker, logged


class Alarm:
    """One instant.

    Args:
        ring: called in the loop at that instant, or soon after.

    Attributes:
        at: monotonic seconds.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self.at = float("inf")
        self.ring = ring

    def set(self, at: float) -> None:
        """Ring at a monotonic instant. An earlier one that is set already stays: ringing too early is harmless."""
        self.at = min(self.at, at)


class Loop:
    """Runs in one thread; all but the waker is for that thread.

    Args:
        turned: called at the end of each turn.

    Attributes:
        waker: brings calls from other threads into the loop.
    """

    def __init__(self, turned: Callable[[], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._turned = turned
        self._alarms: list[Alarm] = []
        self._is_ending = False
        self.waker = Waker()
        self.waker.attach(self)

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back when a socket is readable."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def remove(self, fd: int) -> None:
        """Call back no more."""
        self._selector.unregister(fd)

    def add_alarm(self, ring: Callable[[], None]) -> Alarm:
        """An alarm that rings in this loop."""
        alarm = Alarm(ring)
        self._alarms.append(alarm)
        return alarm

    def run(self) -> None:
        """Turn until the end."""
        while not self._is_ending:
            logged(self._turn)

    def end(self) -> None:
        """Turn no more."""
        self._is_ending = True

    def _turn(self) -> None:
        at = min((alarm.at for alarm in self._alarms), default=float("inf"))
        sleep_s = None if at == float("inf") else max(0.0, at - time.monotonic())
        events: list[tuple[Any, int]] = self._selector.select(sleep_s)
        for key, _ in events:
            logged(key.data)
        now = time.monotonic()
        for alarm in self._alarms:
            if alarm.at <= now:
                alarm.at = float("inf")
                logged(alarm.ring)
        self._turned()
