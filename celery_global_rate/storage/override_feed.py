"""How a worker learns of new overrides, of pauses that APIs have asked for, and of new workers."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError, TimeoutError

from ..limits.timing import SILENCE_S
from .back_offs import NEWS as PAUSE
from .back_offs import BackOffs
from .heartbeat import Heartbeat
from .hub_connection import HubConnection
from .overrides import Overrides
from .scripts import SYNC_OVERRIDES, era_key, sync_overrides_call
from .waker import Waker

#: Between two looks at the era, in seconds: an override whose announcement was lost is learnt this late.
LOOK_S = 5.0
#: News of another worker, with how many there are. News that is neither this nor a pause is an override.
NEW_WORKER = re.compile(rb"workers\n(\d{1,9})")


class OverrideFeed:
    """A second connection on which news is announced, and looks for overrides that it has missed.

    Args:
        make: makes a connection of redis-py that is not open yet.
        waker: of the loop.
        connection: the one that slots are reserved on.
        prefix: of all keys.
        channel: on which news is published.
        overrides: what is known, and learns.
        heartbeat: counts the workers.
        back_offs: hears of pauses that APIs have asked for.
        wake: asks for a turn of the chores at a monotonic instant.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        waker: Waker,
        connection: HubConnection,
        prefix: str,
        channel: str,
        overrides: Overrides,
        heartbeat: Heartbeat,
        back_offs: BackOffs,
        wake: Callable[[float], None],
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._channel_name = channel
        self._overrides = overrides
        self._heartbeat = heartbeat
        self._back_offs = back_offs
        self._wake = wake
        self._channel = HubConnection(make, waker, self._changed, self._heard)
        self._era: tuple[Any, ...] = (None, None)
        self._look_at = 0.0

    def attach(self, hub: Any) -> None:
        """Listen in this loop."""
        self._channel.attach(hub)

    def detach(self) -> None:
        """Listen no more."""
        self._channel.detach()

    def keep_up(self, now: float) -> float:
        """Look for missed overrides if it is time to; returns the monotonic instant of the next look."""
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            for connection in (self._connection, self._channel):
                if connection.silent_s > SILENCE_S:
                    connection.receive()  # it may be this worker that has been silent
                if (silent_s := connection.silent_s) > SILENCE_S:
                    connection.lose(TimeoutError(f"no answer for {silent_s:.1f} s"))
            self._channel.open()
            self.look()
        return self._look_at

    def look(self) -> None:
        """Compare the era with the one that is known. Redis may have restarted empty, or be another one by now."""
        self._connection.send(("HMGET", era_key(self._prefix), "id", "changes"), self._seen)

    def _seen(self, era: object) -> None:
        if not isinstance(era, list):
            return
        if tuple(era) != self._era or (None in era and self._overrides.texts):
            call = sync_overrides_call(self._prefix, uuid.uuid4().hex, self._overrides.texts)
            self._connection.send(("EVAL", SYNC_OVERRIDES.source, *call), self._kept)

    def _kept(self, answer: object) -> None:
        if not isinstance(answer, list):
            return
        _, *era, pairs = answer
        had_era = None not in self._era
        self._era = tuple(era)
        # A list, not any(): each must be learnt.
        missed = [
            name
            for name, override in zip(pairs[::2], pairs[1::2])
            if self._overrides.learn(name.decode(errors="replace"), override)
        ]
        if missed and had_era:
            self._channel.lose(ConnectionError("an override was not announced"))

    def _changed(self, error: Exception | None) -> None:
        if error is None:
            self._channel.send(("SUBSCRIBE", self._channel_name), self._subscribed)

    def _subscribed(self, answer: object) -> None:
        """From now on this worker hears everything; look for what it has missed so far."""
        self.look()
        self._heartbeat.beat(time.monotonic())

    def _heard(self, message: Any) -> None:
        if joined := NEW_WORKER.fullmatch(message[2]):
            self._heartbeat.hear(time.monotonic(), int(joined[1]))
            return
        if pause := PAUSE.fullmatch(message[2]):
            self._back_offs.hear(int(pause[1]), int(pause[2]), pause[3])
            self._wake(time.monotonic())  # the chores learn when it ends
            return
        override, _, name = message[2].partition(b"\n")
        self._overrides.learn(name.decode(errors="replace"), override)
