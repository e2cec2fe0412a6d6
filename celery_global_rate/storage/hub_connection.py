"""A connection to Redis that the event loop never waits for."""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

from redis.exceptions import ConnectionError, ResponseError

Answer = Callable[[object], None]

#: How soon a lost connection is opened again, in seconds: at random between the two, not by all workers at once.
REOPEN_S, REOPEN_LATE_S = 0.25, 0.375

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError)


def pack(command: tuple[Any, ...]) -> bytes:
    """A command as Redis reads it. For some hundred calls a second, redis-py's own takes three times as long.

    Args:
        command: its words, which are texts, bytes or whole numbers.
    """
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


class CallsInLoop(Protocol):
    """What runs callbacks in the event loop."""

    guard: Callable[[Callable[[], None]], None]

    def call(self, callback: Callable[[], None]) -> None:
        """Run `callback` in the next turn of the loop."""


class HubConnection:
    """Commands go out at once, answers come in when the loop finds the socket readable, in order.

    Connecting resolves names and waits for the handshake, which blocks, so a thread does it.

    Args:
        make: makes a connection of redis-py that is not open yet.
        waker: brings the opened connection back into the loop; its guard runs all that is called there.
        on_change: called in the loop with None when the connection has opened, with the error when it is lost.
        on_message: called in the loop with messages after a `SUBSCRIBE`; None if there are none.
        in_one_turn: a context in which answers that have arrived together are given.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        waker: CallsInLoop,
        on_change: Callable[[Exception | None], None],
        on_message: Answer | None = None,
        in_one_turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._make = make
        self._waker = waker
        self._on_change = on_change
        self._on_message = on_message
        self._in_one_turn = in_one_turn
        self._hub: Any = None
        self._redis: Any = None
        self._fd = -1
        self._opener: threading.Thread | None = None
        self._reopen_at = 0.0
        self._answers: deque[tuple[float, Answer]] = deque()
        #: What goes out together, or None if each command goes out at once.
        self._parts: list[bytes] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as it is known."""
        return self._redis is not None

    @property
    def silent_s(self) -> float:
        """How long the oldest unanswered command has been waiting, in seconds."""
        return time.monotonic() - self._answers[0][0] if self._answers else 0.0

    def attach(self, hub: Any) -> None:
        """Use this loop, and start connecting."""
        self.detach()
        self._hub = hub
        self._reopen_at = 0.0
        self.open()

    def detach(self) -> None:
        """Close. Commands that were sent still reach Redis; their answers are not read."""
        self._close()
        self._hub = self._opener = None
        self._answers.clear()

    def send(self, command: tuple[Any, ...], answer: Answer) -> None:
        """Send a command.

        Args:
            command: its words.
            answer: called once in the loop with the reply, or with the exception.
        """
        if self._redis is None:
            self.open()
            answer(ConnectionError("not connected"))
            return
        # Packed first: a command that cannot be packed must not wait for an answer, or it would get the next one's.
        packed = pack(command)
        self._answers.append((time.monotonic(), answer))
        if self._parts is None:
            self._write(packed)
        else:
            self._parts.append(packed)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is sent meanwhile goes out at the end, in one write."""
        self._parts = []
        try:
            yield
        finally:
            parts, self._parts = self._parts, None
            if parts and self._redis is not None:
                self._write(b"".join(parts))

    def _write(self, packed: bytes) -> None:
        try:
            # Not by send_packed_command: that closes the socket on an error, while the loop still listens to it.
            self._redis._sock.sendall(packed)
        except OSError as exc:
            self.lose(exc)

    def receive(self) -> None:
        """Take the answers that have arrived; called by the loop when the socket is readable."""
        self._waker.guard(self._receive_together)

    def _receive_together(self) -> None:
        with self._in_one_turn():
            self._receive_all()

    def _receive_all(self) -> None:
        while self._redis is not None:
            reply: object
            try:
                reply = self._redis.read_response(disconnect_on_error=False)
            except ResponseError as exc:
                reply = exc
            except Exception as exc:  # after a reply that cannot be parsed, the rest cannot be parsed either
                # redis-py raises this for an incomplete answer, and keeps what has come so far.
                if not isinstance(exc.__context__, WOULD_BLOCK):
                    self.lose(exc)
                return
            answer = self._answers.popleft()[1] if self._answers else self._on_message
            if answer is None:
                self.lose(ConnectionError(f"unexpected reply: {type(reply).__name__}"))
                return
            self._waker.guard(partial(answer, reply))
            if not (self._answers or self._on_message):
                return

    def lose(self, reason: Exception) -> None:
        """Give the connection up. All commands without an answer are answered with the reason."""
        self._close()
        self._put_off()
        unanswered, self._answers = self._answers, deque()
        self._waker.guard(partial(self._on_change, reason))
        for _, answer in unanswered:
            self._waker.guard(partial(answer, reason))

    def open(self) -> None:
        """Start connecting, unless it is connected or connecting, or it is too soon."""
        if (
            self._hub is None
            or self._redis is not None
            or self._opener is not None
            or time.monotonic() < self._reopen_at
        ):
            return
        opener = threading.Thread(target=self._connect, name="global-rate-connect", daemon=True)
        try:
            opener.start()
        except RuntimeError as exc:  # no more threads for now
            self._put_off()
            self._on_change(exc)
        else:
            self._opener = opener

    def _connect(self) -> None:
        opener = threading.current_thread()
        try:
            connection = self._make()
            connection.connect()
            connection._sock.settimeout(0)
        except Exception as exc:
            self._waker.call(partial(self._opened, opener, None, exc))
        else:
            self._waker.call(partial(self._opened, opener, connection, None))

    def _opened(self, opener: threading.Thread, connection: Any, error: Exception | None) -> None:
        if opener is not self._opener:  # detached meanwhile
            if connection is not None:
                connection.disconnect()
            return
        self._opener = None
        if error:
            self.lose(error)
        else:
            self._redis, self._fd = connection, connection._sock.fileno()
            self._hub.add_reader(self._fd, self.receive)
            self._on_change(None)

    def _put_off(self) -> None:
        self._reopen_at = time.monotonic() + random.uniform(REOPEN_S, REOPEN_LATE_S)

    def _close(self) -> None:
        if self._redis is None:
            return
        self._hub.remove(self._fd)  # before closing: the number may be taken by another socket at once
        self._redis.disconnect()
        self._redis = None
