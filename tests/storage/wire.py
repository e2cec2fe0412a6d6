"""A real hub that a test turns by hand, and a connection of the extension in it."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from kombu.asynchronous import Hub

from celery_global_rate.settings import Settings
from celery_global_rate.storage.hub_connection import HubConnection
from celery_global_rate.storage.waker import Waker

TICK_S = 0.005
#: What a busy machine may add to a single wake-up, in seconds. Waits that must not be take 0.2 s or more.
NOISE_S = 0.15


class Loop:
    """A real hub, turned by hand as Celery's `asynloop` turns it. The longest turn includes its sleep."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.longest_turn_s = 0.0
        self._reader, self._writer = socket.socketpair()
        self._begin()

    def reset(self) -> None:
        """Forget all readers, as Celery's loop does when the broker connection is lost."""
        self.hub.reset()
        self._begin()

    def _begin(self) -> None:
        self.turns = self.hub.create_loop()
        self.hub.add_reader(self._reader.fileno(), partial(self._reader.recv, 4096))

    def tick(self, every_s: float, callback: Callable[[], None] = lambda: None) -> None:
        """Call back repeatedly, so that no turn sleeps longer than this."""
        self.hub.timer.call_repeatedly(every_s, callback)

    def turn(self) -> None:
        begin = time.monotonic()
        next(self.turns)
        self.longest_turn_s = max(self.longest_turn_s, time.monotonic() - begin)

    def run_until(self, done: Callable[[], Any], within_s: float = 5.0) -> None:
        """Turn until it is done, which must be so within this time."""
        deadline = time.monotonic() + within_s
        entry = self.hub.timer.call_at(deadline, lambda: None)  # no sleep beyond the deadline

        def sleep_no_more() -> None:  # a turn fires its timers first and sleeps then
            if done():
                self._writer.send(b"\0")

        self.hub.on_tick.add(sleep_no_more)
        while not done():
            assert time.monotonic() < deadline, f"not done within {within_s} s"
            self.turn()
        self.hub.on_tick.discard(sleep_no_more)
        entry.cancel()

    def run_for(self, seconds: float) -> None:
        """Turn for this long."""
        end = time.monotonic() + seconds
        self.hub.timer.call_at(end, lambda: None)
        self.run_until(lambda: time.monotonic() >= end, seconds + 5)

    def close(self) -> None:
        self.hub.close()
        self._reader.close()
        self._writer.close()


#: The class that is entered.
W = TypeVar("W", bound="Wire")


class Wire:
    """A connection of the extension in its own loop, and all that it has reported.

    Attributes:
        opened_by: when and in which thread a connection was made.
        changes: when and what `on_change` was called with.
        answers: the answers to `send`, in the order they came.
    """

    def __init__(self, url: str) -> None:
        self.settings = Settings(url, {}, "test", 100)
        self.loop, self.waker = Loop(), Waker()
        self.opened_by: list[tuple[float, threading.Thread]] = []
        self.changes: list[tuple[float, Exception | None]] = []
        self.answers: list[Any] = []
        self.connection = HubConnection(self._make, self.waker, self._changed)

    def __enter__(self: W) -> W:
        self.attach()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.detach()
        self.waker.close()
        self.loop.close()

    def _make(self) -> Any:
        self.opened_by.append((time.monotonic(), threading.current_thread()))
        return self.settings.connection()

    def _changed(self, error: Exception | None) -> None:
        self.changes.append((time.monotonic(), error))

    def attach(self) -> None:
        """As the step does when the worker has its loop."""
        self.waker.attach(self.loop.hub)
        self.connection.attach(self.loop.hub)

    def detach(self) -> None:
        """As the step does when it stops."""
        self.connection.detach()
        self.waker.detach(self.loop.hub)

    def open(self) -> None:
        """Run until the connection is open, asking for it as often as a worker with held tasks does."""
        known = len(self.changes)
        self.loop.run_until(lambda: len(self.changes) > known)
        assert self.changes[-1][1] is None

    def send(self, *command: Any) -> None:
        self.connection.send(command, self.answers.append)

    def ask(self, *command: Any) -> Any:
        """Send a command and wait for its answer."""
        known = len(self.answers)
        self.send(*command)
        self.loop.run_until(lambda: len(self.answers) > known)
        return self.answers[-1]

    def arrived(self) -> bool:
        """Whether something has come that the loop has not read."""
        return bool(select.select([self.connection._fd], [], [], 0)[0])
