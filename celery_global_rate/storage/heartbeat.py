"""The workers that share the limits: each has a heartbeat, and the reply to it says how many there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from .scripts import HEARTBEAT, heartbeat_call, members_key

#: The pause between beats, and how long a worker counts without one, in seconds.
BEAT_S = 10.0
LIFE_S = 30.0
#: The first pause between beats, in seconds, at the start and after a worker joined unannounced. Each further one is
#: twice as long: workers often start together, and announcements may be lost.
FIRST_S = 1.0
#: The largest count within this time, in seconds, is taken: a worker that restarts is still counted.
MEMORY_S = 60.0


class Connection(Protocol):
    """What is known of the connection."""

    def send(self, command: tuple[Any, ...], answer: Callable[[object], None]) -> None:
        """Send a command; `answer` is called once with the reply or an exception."""


class Heartbeat:
    """How many workers with the same prefix are alive.

    Args:
        connection: to the limits' Redis.
        prefix: of all keys.
        worker: a name that is unique to this process.
        channel: on which a new worker is announced.
        wake: called with the monotonic instant of the next beat when it is earlier than it was.
        is_active: whether this process needs a share of the limits; without a need it does not beat.
    """

    def __init__(
        self,
        connection: Connection,
        prefix: str,
        worker: str,
        channel: str,
        wake: Callable[[float], None],
        is_active: Callable[[], bool] = lambda: True,
    ) -> None:
        self._is_active = is_active
        self._connection = connection
        self._prefix = prefix
        self._worker = worker
        self._channel = channel
        self._wake = wake
        self._pause_s = FIRST_S
        self._beat_at = float("-inf")
        #: Counts and when they came. Old ones are dropped only as new ones come: during an outage the last ones stay.
        self._counts: deque[tuple[float, int]] = deque()

    @property
    def most(self) -> int:
        """The largest count of the last minute that had one; 0 if there never was one."""
        return max((count for _, count in self._counts), default=0)

    def keep_up(self, now: float) -> float:
        """Beat if it is time to; returns the monotonic instant of the next beat."""
        if not self._is_active():
            return float("inf")
        if now >= self._beat_at:
            self.beat(now)
        return self._beat_at

    def beat(self, now: float) -> None:
        """Report that this worker is alive."""
        if not self._is_active():
            return
        self._beat_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, BEAT_S)
        call = heartbeat_call(self._prefix, self._worker, LIFE_S, self._channel)

        def counted(answer: object) -> None:
            if not isinstance(answer, int):
                return
            if answer > self.most:
                self._pause_s, self._beat_at = 2 * FIRST_S, now + FIRST_S
                self._wake(self._beat_at)
            self.hear(now, answer)

        self._connection.send(("EVAL", HEARTBEAT.source, *call), counted)

    def hear(self, now: float, count: int) -> None:
        """Note how many workers are alive."""
        self._counts.append((now, count))
        while self._counts[0][0] < now - MEMORY_S:
            self._counts.popleft()

    def leave(self) -> None:
        """This worker ends, rests, or has lost its broker: the others need not count it."""
        self._pause_s, self._beat_at = FIRST_S, float("-inf")
        self._connection.send(("ZREM", members_key(self._prefix), self._worker), lambda answer: None)
