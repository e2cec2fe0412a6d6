"""The worker's event loop: how to be woken by it in time, and one of our own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from kombu.asynchronous import Hub

from ..storage.waker import Waker, logged

logger = logging.getLogger(__name__)

#: How long a loop of our own is waited for when it is to end, in seconds.
STOP_S = 2.0
#: A loop that has not turned for this long, in seconds, was blocked: it sleeps for a second at the most.
BLOCKED_S = 5.0


def fire_timers(hub: Any, fire: Callable[..., float], **options: Any) -> float:
    """Fire as kombu does, and return for how long the loop may sleep: not beyond the next timer."""
    sleep_s = fire(**options)
    timers = hub.timer._queue
    if not (sleep_s and timers):
        return sleep_s
    until_next_s: float = timers[0][0] - time.monotonic()
    return max(0.0, min(sleep_s, until_next_s))


class Alarm:
    """The one timer of this extension.

    kombu's loop fires ten timers a turn and then sleeps for up to a second, even if another is due, or will be. So
    this one looks at the clock in every turn as well, and no sleep lasts beyond the worker's next timer.

    Args:
        ring: called at the instant that was set, or soon after.
        waker: ends the loop's sleep.
    """

    def __init__(self, ring: Callable[[], None], waker: Waker) -> None:
        self._ring = ring
        self._waker = waker
        self._hub: Any = None
        self._entry: Any = None
        self._at = float("inf")
        self._turned = self._resumed = self._stopped = time.monotonic()

    @property
    def blocked_s(self) -> float:
        """For how long the loop has been blocked, in seconds, now or a moment ago: messages may have waited so long."""
        now = time.monotonic()
        since = self._stopped if now - self._resumed < BLOCKED_S else self._turned
        return now - since if now - since > BLOCKED_S else 0.0

    def attach(self, hub: Any) -> None:
        """Use this loop's timers."""
        self.detach()
        self._hub = hub
        hub.on_tick.add(self._on_tick)
        hub.fire_timers = partial(fire_timers, hub, hub.fire_timers)

    def detach(self) -> None:
        """Ring no more."""
        if self._hub is None:
            return
        self._hub.on_tick.discard(self._on_tick)
        del self._hub.fire_timers  # the class has kombu's own
        self._forget()
        self._hub = None

    def set(self, at: float) -> None:
        """Ring at a monotonic instant. An earlier one that is set already stays: ringing too early is harmless."""
        if self._hub is None or at >= self._at:
            return
        self._forget()
        self._at = at  # first: if setting a timer fails, every turn of the loop still looks at the clock
        self._entry = self._hub.timer.call_at(at, self._fire)

    def _forget(self) -> None:
        if self._entry is not None:
            self._hub.timer.cancel(self._entry)
        self._entry, self._at = None, float("inf")

    def _fire(self) -> None:
        self._forget()
        self._ring()

    def _on_tick(self) -> None:
        now = time.monotonic()
        if now - self._turned > BLOCKED_S:
            self._stopped, self._resumed = self._turned, now
        self._turned = now
        if self._at <= now:
            self._fire()
            self._waker.wake()  # the pool looks for new work before it sleeps, and may have looked already


class HubThread:
    """A loop for a worker that has none: kombu's, in a thread, or in a greenlet if threads are patched.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None

    def start(self, attach: Callable[[Any], None]) -> None:
        """Start it; `attach` is called first in it, with the hub."""
        self._is_ending = False
        self._hub, self._waker = Hub(), Waker()
        self._thread = threading.Thread(target=self._turn, args=(attach,), name=self._name, daemon=True)
        self._thread.start()

    def stop(self, detach: Callable[[Any], None]) -> None:
        """End it; `detach` is called last in it."""
        if self._thread is not None:
            self._waker.call(partial(self._end, detach))
            self._thread.join(STOP_S)
            self._thread = None

    def _end(self, detach: Callable[[Any], None]) -> None:
        self._is_ending = True
        detach(self._hub)

    def _turn(self, attach: Callable[[Any], None]) -> None:
        self._waker.attach(self._hub)
        logged(partial(attach, self._hub))
        loop = self._hub.create_loop()
        while not self._is_ending:
            try:
                next(loop)
            except Exception:
                logger.exception("global-rate: error in the event loop; continuing")
                loop = self._hub.create_loop()
        self._hub.close()
        self._waker.close()
