"""The verbs that change a limit in Redis. They return at once; answers come later, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError, TimeoutError

from .bucket import REPLY_TIMEOUT_S
from .clock import RedisClock
from .limit import Limit
from .reservation import Reservation
from .script import GIVE_BACK, RESERVE, give_back_call, reserve_call

#: A connection that has not answered for this long is given up, in seconds.
SILENCE_S = 1.0


class Connection(Protocol):
    """What the limiter knows of its connection."""

    @property
    def silent_s(self) -> float:
        """How long the oldest command without an answer has been waiting, in seconds."""

    def send(self, command: tuple[Any, ...], answer: Callable[[object], None]) -> None:
        """Send a command; `answer` is called once with the reply or an exception."""

    def receive(self) -> None:
        """Take the answers that have arrived."""

    def lose(self, reason: Exception) -> None:
        """Give the connection up."""


class Orders(Protocol):
    """What the limiter knows of the orders of operators."""

    def text(self, name: str) -> str:
        """The record of a bucket that this worker knows; empty where it knows none."""

    def learn(self, name: str, text: str | bytes) -> bool:
        """Take in the higher one that Redis knows."""


class Limiter:
    """Reserves slots and gives them back.

    Args:
        connection: sends a command and calls back with its answer.
        prefix: the prefix of all keys.
        worker: a name that is unique to this process.
        clock: the worker's view of the Redis clock, learnt from every answer.
        report: called with every reply of Redis, an error reply among them. The connection tells of its own errors.
        orders: what operators have ordered, as far as this worker knows.
    """

    def __init__(
        self,
        connection: Connection,
        prefix: str,
        worker: str,
        clock: RedisClock,
        report: Callable[[object], None],
        orders: Orders,
    ) -> None:
        self.clock = clock
        self._connection = connection
        self._prefix = prefix
        self._worker = worker
        self._report = report
        self._orders = orders

    def reserve(self, name: str, limit: Limit, wanted: int, reply: Callable[[Reservation | None], None]) -> None:
        """Ask for slots of a limit.

        Args:
            name: the bucket.
            limit: the limit in force here.
            wanted: how many slots the caller could use before the horizon, at least 1.
            reply: called once with the reservation, or with None where Redis gave no answer.
        """
        if self._connection.silent_s > REPLY_TIMEOUT_S:
            self._connection.receive()  # it may be this worker that has been silent
        if (silent_s := self._connection.silent_s) > REPLY_TIMEOUT_S:
            if silent_s > SILENCE_S:
                self._connection.lose(TimeoutError(f"no answer for {silent_s:.1f} s"))
            reply(None)
            return
        arguments = reserve_call(self._prefix, name, limit, wanted, self._worker, self._orders.text(name))

        def send(verb: str, script: str) -> None:
            self._connection.send((verb, script, *arguments), partial(answered, time.monotonic()))

        def answered(sent: float, answer: object) -> None:
            if isinstance(answer, NoScriptError):
                send("EVAL", RESERVE.source)
                return
            if isinstance(answer, (list, ResponseError)):
                self._report(answer)
            if isinstance(answer, ReadOnlyError):  # a failover: its name leads to another server by now
                self._connection.lose(answer)
            if not isinstance(answer, list):
                reply(None)
                return
            reservation = Reservation(*answer)
            read = time.monotonic()
            if read - sent <= REPLY_TIMEOUT_S:  # a later one tells nothing of the clock worth knowing
                self.clock.observe(reservation.now_us, sent, read)
            is_readable = not reservation.record or self._orders.learn(name, reservation.record)
            reply(reservation if is_readable else None)

        send("EVALSHA", RESERVE.sha)

    def give_back(self, name: str, reservation: Reservation) -> None:
        """Return what is left of a reservation. Nobody waits for the answer, and nothing is sent twice.

        The whole script goes along: this may be the last that the worker sends, so no answer could ask for it.
        """
        arguments = give_back_call(self._prefix, name, reservation)
        self._connection.send(("EVAL", GIVE_BACK.source, *arguments), lambda answer: None)
