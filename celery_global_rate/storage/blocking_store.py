"""Overrides and buckets for code that may block: the command line, a remote control command, a worker's start."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ConnectionError, RedisError

from ..limits.override import Override
from ..limits.redis_clock import RedisClock
from .location import Location
from .scripts import (
    BACK_OFF,
    SET_OVERRIDE,
    back_off_call,
    bucket_key,
    history_key,
    log_key,
    news_channel,
    overrides_key,
    read_log,
    read_windows,
    set_override_call,
    waiting_key,
)

#: Errors of Redis and of the way to it.
ERRORS = (RedisError, OSError)


@dataclass(frozen=True)
class State:
    """A bucket at one moment.

    Attributes:
        last_us: the last slot given out, on the Redis clock (epoch us); None for a full bucket.
        given: slots given out so far; a bucket that was full starts at 0 again.
        waiting: workers that wait for one.
        used: of fixed windows, by their begin (epoch us): how many slots are booked.
        log: of sliding windows: instants (epoch us) and how many slots were booked there, the oldest first.
        tokens: of refills by a crontab: how many are left since which of them (epoch us), and how many are taken of the
            next one; None if all are left.
        off_us: until when an API has asked for a pause (epoch us); 0 if none has, or it is over.
    """

    last_us: int | None
    given: int
    waiting: int
    used: Mapping[int, int] = field(default_factory=dict)
    log: Sequence[tuple[int, int]] = ()
    tokens: tuple[int, int, int] | None = None
    off_us: int = 0


class BlockingStore:
    """A connection that its user waits for; as a context manager it is open.

    Args:
        location: where the limits are kept.
        timeout_s: how long to wait for the server at each step, in seconds; None for redis-py's own.
        clock: learns the time of Redis from replies.

    All methods raise one of `ERRORS` if Redis does not answer. Its text may quote a password.
    """

    def __init__(self, location: Location, timeout_s: float | None = None, clock: RedisClock | None = None) -> None:
        self._clock = clock or RedisClock()
        self._prefix = location.key_prefix
        self._channel = news_channel(location.key_prefix, location.database)
        self._connection = location.connection()
        if timeout_s is not None:
            self._connection.socket_timeout = self._connection.socket_connect_timeout = timeout_s

    def __enter__(self) -> BlockingStore:
        try:
            self._connection.connect()
        except ERRORS:
            raise
        except Exception as exc:  # a credential provider is somebody's code
            raise ConnectionError(type(exc).__name__) from exc
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.disconnect()

    def overrides(self) -> dict[str, bytes]:
        """All overrides as they are kept, by the names of their buckets."""
        sent = time.monotonic()
        self._clock.observe(self.now_us(), sent, time.monotonic())
        pairs = self._call("HGETALL", overrides_key(self._prefix))
        return {name.decode(errors="replace"): override for name, override in zip(pairs[::2], pairs[1::2])}

    def change(
        self,
        name: str,
        change: Mapping[str, Any],
        by: str,
        source: str,
        reason: str = "",
        id: str = "",
        late_s: float = 0,
    ) -> tuple[bool, Override | None]:
        """Write a new override.

        Args:
            name: of the bucket.
            change: as made by `override.set_limits` and the like.
            by: the operator.
            source: the command.
            reason: why.
            id: of the command, if several workers may receive it; it is written once.
            late_s: the command may be this old, in seconds, and does not undo a later one.

        Returns:
            Whether it was written, and the override that is stored now.
        """
        entry = {**change, "by": by, "source": source, "reason": reason}
        call = set_override_call(self._prefix, name, entry, id or uuid.uuid4().hex, int(late_s * 1e6), self._channel)
        written, _, text = self._call("EVAL", SET_OVERRIDE.source, *call)
        return bool(written), Override.parse(text) if text else None

    def history(self, name: str) -> list[Override]:
        """The last changes of a bucket, the newest first."""
        found = []
        for text in self._call("LRANGE", history_key(self._prefix, name), 0, -1):
            with contextlib.suppress(ValueError):  # another version's, or somebody else's
                found.append(Override.parse(text))
        return found

    def states(self, windows: Mapping[str, Sequence[str]]) -> dict[str, list[State]]:
        """The present states of some buckets, in one round trip.

        Args:
            windows: of the limits of each name.
        """
        now_us = self.now_us()
        found: dict[str, list[State]] = {name: [] for name in windows}
        buckets = [(name, window) for name in windows for window in windows[name]]
        for bucket in buckets:
            fields = "slot", "given", "off", "off_length", "windows", "shift", "tokens", "edge", "ahead"
            self._connection.send_command("HMGET", bucket_key(self._prefix, *bucket), *fields)
            self._connection.send_command("ZCOUNT", waiting_key(self._prefix, *bucket), now_us, "+inf")
            self._connection.send_command("LRANGE", log_key(self._prefix, *bucket), 0, -1)
        for name, _ in buckets:
            slot, given, off, length, used, shift, *refilled = self._connection.read_response()
            waiting, log = self._connection.read_response(), self._connection.read_response()
            last_us = int(slot) if slot else None
            off_us = min(int(off), now_us + int(length)) if off else 0
            off_us = off_us if off_us > now_us else 0
            tokens, edge_us, ahead = (int(text or 0) for text in refilled)
            left = (tokens, edge_us, ahead) if edge_us else None
            booked = read_windows(used), read_log(log, shift)
            state = State(last_us, int(given or 0), waiting, *booked, left, off_us)
            found[name].append(state)
        return found

    def back_off(self, name: str, windows: Iterable[str], length_us: int, note: str) -> tuple[int, bool]:
        """An API asks for a pause of all limits of a bucket.

        Args:
            name: of the bucket.
            windows: of its limits.
            length_us: of the pause, in microseconds, from now on; of several the one that ends last counts. 0 to end
                those there are.
            note: announced to all workers.

        Returns:
            Until when (Redis clock, epoch us), and whether that is another end than before.
        """
        call = back_off_call(self._prefix, name, windows, length_us, self._channel, note)
        _, until_us, is_new = self._call("EVAL", BACK_OFF.source, *call)
        return until_us, bool(is_new)

    def now_us(self) -> int:
        """The Redis clock, epoch us."""
        seconds, microseconds = self._call("TIME")
        return int(seconds) * 1_000_000 + int(microseconds)

    def _call(self, *words: object) -> Any:
        self._connection.send_command(*words)
        return self._connection.read_response()
