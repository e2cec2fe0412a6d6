"""Reserving slots in Redis and giving them back. Calls return at once; answers come later, or not at all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from redis.exceptions import NoScriptError, ReadOnlyError, ResponseError, TimeoutError

from ..limits.bucket import Bucket
from ..limits.costs import Costs
from ..limits.in_force import Pauses
from ..limits.redis_clock import LAST_US, RedisClock
from ..limits.reservation import Reply, SlotsInHand
from ..limits.timing import REPLY_TIMEOUT_S, SILENCE_S
from .outage_policies import Policy
from .scripts import Script, giving_back, read_reservation, reserving


class Connection(Protocol):
    """What the limiter knows of its connection."""

    @property
    def silent_s(self) -> float:
        """How long the oldest command without an answer has been waiting, in seconds."""

    def send(self, command: tuple[Any, ...], answer: Callable[[object], None]) -> None:
        """Send a command; `answer` is called once with the reply or an exception."""

    def together(self) -> AbstractContextManager[None]:
        """What is sent meanwhile goes out at the end, in one write."""

    def receive(self) -> None:
        """Take the answers that have arrived."""

    def lose(self, reason: Exception) -> None:
        """Give the connection up."""


class OutageWatch(Protocol):
    """What the limiter knows of an outage."""

    def counts(self, name: str) -> bool:
        """Whether the policy gives out the slots of a bucket."""

    @property
    def awake_us(self) -> int:
        """How long there has been none, in microseconds."""

    def replied(self, name: str, reply: object) -> None:
        """Redis has replied for a bucket, perhaps with an error. The connection reports its own errors."""

    def took(self, round_trip_s: float) -> None:
        """A reply with slots took this long, in seconds."""


class KnownOverrides(Protocol):
    """What the limiter knows of operators' overrides."""

    def is_open(self, name: str, now_us: float) -> bool:
        """Whether a bucket has slots at an instant of the Redis clock, or is paused."""

    def text(self, name: str) -> str:
        """The override of a bucket that this worker knows; empty if it knows none."""

    def learn(self, name: str, text: str | bytes) -> bool:
        """Take in the higher one that Redis knows."""


class Limiter:
    """Reserves slots and gives them back.

    Args:
        connection: sends a command and calls back with its answer.
        prefix: the prefix of all keys.
        worker: a name that is unique to this process.
        clock: the worker's view of the Redis clock, learnt from every answer.
        outage: whether there is one.
        policy: gives out slots during an outage.
        overrides: what operators have set, as far as this worker knows.
        back_offs: the pauses that APIs have asked for, as far as it knows.

    Attributes:
        clock: as above.
    """

    def __init__(
        self,
        connection: Connection,
        prefix: str,
        worker: str,
        clock: RedisClock,
        outage: OutageWatch,
        policy: Policy,
        overrides: KnownOverrides,
        back_offs: Pauses,
    ) -> None:
        self.clock = clock
        self._connection = connection
        self._prefix = prefix
        self._worker = worker
        self._outage = outage
        self._policy = policy
        self._overrides = overrides
        self._back_offs = back_offs
        self._try_at: dict[str, float] = {}

    def reserve(
        self,
        name: str,
        buckets: tuple[Bucket, ...],
        wanted: int,
        reply: Reply,
        costs: Costs | None = None,
        within_s: float = math.inf,
    ) -> None:
        """Ask for slots.

        Args:
            name: of the lane that asks.
            buckets: those that each slot is of, at the limits in force here.
            wanted: how many slots the caller could use before the horizon, at least 1.
            reply: called once with the reservation, or with None if Redis gave no answer.
            costs: of these slots, in units of each bucket; None for one of each.
            within_s: how far ahead a slot is of use, in seconds; 0 for a caller that does not wait for one.
        """
        if self._connection.silent_s > REPLY_TIMEOUT_S:
            self._connection.receive()  # it may be this worker that has been silent
        if (silent_s := self._connection.silent_s) > SILENCE_S:
            self._connection.lose(TimeoutError(f"no answer for {silent_s:.1f} s"))
        if self._outage.counts(name):
            self._try(name, buckets)
            reply(self._policy.reserve(buckets, wanted, costs) if self._are_open(buckets) else None)
        elif silent_s > REPLY_TIMEOUT_S:
            reply(None)
        else:
            self._ask(name, buckets, wanted, reply, costs, within_s)

    def _are_open(self, buckets: tuple[Bucket, ...]) -> bool:
        """Whether none of some buckets is paused, by an operator or an API."""
        now_us = self.clock.now_us(time.monotonic())
        return all(
            self._overrides.is_open(it.name, now_us) and now_us >= self._back_offs.floor_us(it.name, it.key_value)
            for it in buckets
        )

    def together(self) -> AbstractContextManager[None]:
        """What is asked for meanwhile goes out at the end, in one write."""
        return self._connection.together()

    def _try(self, name: str, buckets: tuple[Bucket, ...]) -> None:
        """See whether Redis is back. What it grants comes too late for this call, and is given back."""
        now = time.monotonic()
        if now >= self._try_at.get(name, now):
            self._try_at[name] = now + REPLY_TIMEOUT_S
            self._ask(name, buckets, 1, lambda it: self._give_back(buckets, it) if it and it.count else None)

    def _ask(
        self,
        name: str,
        buckets: tuple[Bucket, ...],
        wanted: int,
        reply: Reply,
        costs: Costs | None = None,
        within_s: float = math.inf,
    ) -> None:
        answered = partial(self._answered, name, buckets, reply)
        overrides = [self._overrides.text(bucket.name) for bucket in buckets]
        now_us = self.clock.now_us(time.monotonic())
        if now_us < 0:  # not known yet: the answer will tell
            now_us = time.time() * 1e6
        awake_us = self._outage.awake_us
        latest_us, worker = int(min(1e6 * within_s, LAST_US)), self._worker if within_s else ""
        call = reserving(self._prefix, buckets, wanted, worker, overrides, awake_us, now_us, costs, latest_us)
        ReserveCall(self._connection, *call, len(buckets), answered).send()

    def _answered(
        self,
        name: str,
        buckets: tuple[Bucket, ...],
        reply: Reply,
        answer: object,
        sent: float,
        read: float,
    ) -> None:
        if not isinstance(answer, SlotsInHand):
            self._refused(name, answer)
            reply(None)
            return
        self._outage.replied(name, answer)
        if read - sent <= REPLY_TIMEOUT_S:  # a later one says nothing about the clock worth knowing
            self.clock.observe(answer.now_us, sent, read)
        self._outage.took(read - sent)
        is_readable = not answer.override or self._overrides.learn(buckets[answer.which].name, answer.override)
        reply(answer if is_readable else None)

    def _refused(self, name: str, error: object) -> None:
        if isinstance(error, ResponseError):
            self._outage.replied(name, error)
        if isinstance(error, ReadOnlyError):  # a failover: the server's name leads to another one by now
            self._connection.lose(error)

    def give_back(self, buckets: tuple[Bucket, ...], reservation: SlotsInHand) -> None:
        """Return what is left of a reservation. Nobody waits for the answer, and nothing is sent twice.

        The whole script is sent, not its digest: this may be the last call of the worker, and a reply that asks for the
        script would come too late.
        """
        if reservation.seq:
            self._give_back(buckets, reservation)
        else:
            self._policy.give_back(buckets, reservation)

    def _give_back(self, buckets: tuple[Bucket, ...], reservation: SlotsInHand) -> None:
        script, arguments = giving_back(self._prefix, buckets, reservation)
        self._connection.send(("EVAL", script.source, *arguments), lambda answer: None)


class ReserveCall:
    """A call of a script that reserves slots. It is sent once more if Redis does not have the script.

    Args:
        connection: sends it.
        script: reserve.lua, or the one for lanes of several limits.
        arguments: of the script.
        limits: how many the lane has.
        answered: called once with the reservation, or with the error if there is none, and with when the call was sent
            and its answer read (monotonic seconds).
    """

    def __init__(
        self,
        connection: Connection,
        script: Script,
        arguments: list[Any],
        limits: int,
        answered: Callable[[object, float, float], None],
    ) -> None:
        self._connection = connection
        self._script = script
        self._limits = limits
        self._arguments = arguments
        self._reply = answered

    def send(self) -> None:
        """Send it, by the digest of the script."""
        self._send("EVALSHA", self._script.sha)

    def _send(self, verb: str, script: str) -> None:
        self._connection.send((verb, script, *self._arguments), partial(self._answered, time.monotonic()))

    def _answered(self, sent: float, answer: object) -> None:
        if isinstance(answer, NoScriptError):
            self._send("EVAL", self._script.source)
            return
        if isinstance(answer, list):
            try:
                answer = read_reservation(self._script, answer, self._limits)
            except ValueError as exc:
                answer = ResponseError(str(exc))
        self._reply(answer, sent, time.monotonic())
