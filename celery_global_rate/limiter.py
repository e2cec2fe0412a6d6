"""The verbs that change a limit in Redis. They return at once; answers come later, or not at all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.exceptions import NoScriptError, TimeoutError

from .bucket import REPLY_TIMEOUT_S
from .clock import RedisClock
from .limit import Limit
from .reservation import Reservation
from .script import GIVE_BACK, RESERVE, Script, give_back_call, reserve_call

logger = logging.getLogger(__name__)

#: A connection that has not answered for this long is given up, in seconds.
SILENCE_S = 1.0


class Connection(Protocol):
    """What the limiter knows of its connection."""

    @property
    def silent_s(self) -> float:
        """How long the oldest command without an answer has been waiting, in seconds."""

    def send(self, command: tuple[Any, ...], answer: Callable[[object], None]) -> None:
        """Send a command; `answer` is called once with the reply or an exception."""

    def lose(self, reason: Exception) -> None:
        """Give the connection up."""


class Limiter:
    """Reserves slots and gives them back.

    Args:
        connection: sends a command and calls back with its answer.
        prefix: the prefix of all keys.
        worker: a name that is unique to this process.

    Attributes:
        clock: the worker's view of the Redis clock, learnt from every answer.
    """

    def __init__(self, connection: Connection, prefix: str, worker: str) -> None:
        self.clock = RedisClock()
        self._connection = connection
        self._prefix = prefix
        self._worker = worker

    def reserve(
        self, name: str, limit: Limit, wanted: int, reply: Callable[[Reservation | None], None]
    ) -> None:
        """Ask for slots of a limit.

        Args:
            name: the bucket.
            limit: the limit in force here.
            wanted: how many slots the caller could use before the horizon, at least 1.
            reply: called once with the reservation, or with None where Redis gave no answer.
        """
        silent_s = self._connection.silent_s
        if silent_s > SILENCE_S:
            self._connection.lose(TimeoutError(f"no answer for {silent_s:.1f} s"))
        if silent_s > REPLY_TIMEOUT_S:
            reply(None)
            return
        sent = time.monotonic()

        def answered(answer: object) -> None:
            if not isinstance(answer, list):
                logger.debug("global-rate: no slots for %s: %s", name, answer)
                reply(None)
                return
            reservation = Reservation(*answer)
            self.clock.observe(reservation.now_us, sent, time.monotonic())
            reply(reservation)

        self._run(RESERVE, reserve_call(self._prefix, name, limit, wanted, self._worker), answered)

    def give_back(self, name: str, reservation: Reservation) -> None:
        """Return what is left of a reservation. Never repeated: a second one would free somebody else's slots."""
        self._run(GIVE_BACK, give_back_call(self._prefix, name, reservation), lambda answer: None)

    def _run(self, script: Script, arguments: Sequence[str | int], answer: Callable[[object], None]) -> None:
        def by_sha(reply: object) -> None:
            if isinstance(reply, NoScriptError):
                self._connection.send(("EVAL", script.source, *arguments), answer)
            else:
                answer(reply)

        self._connection.send(("EVALSHA", script.sha, *arguments), by_sha)
