"""The buckets that back off: an API has asked for a pause, and this process has heard of it."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from ..limits.redis_clock import RedisClock

logger = logging.getLogger(__name__)

#: As back_off.lua announces it: until when, and for how long (us), and whose it is and why.
NEWS = re.compile(rb"off\n(\d{1,16}) (\d{1,16})\n(.*)", re.DOTALL)


@dataclass(frozen=True)
class BackOff:
    """A pause that an API has asked for.

    Attributes:
        name: of a task or a named bucket.
        value: of its key, as a part of a Redis key; None if it has none.
        why: what the API has answered.
        until_us: on the Redis clock, epoch us.
        ends: the same in monotonic seconds, or a little earlier if the Redis clock has stepped back since.
        began: when this process heard of it first, monotonic seconds.
    """

    name: str
    value: str | None
    why: str
    until_us: int
    ends: float
    began: float

    @property
    def bucket(self) -> str:
        """The bucket, for people."""
        return self.name if self.value is None else f"{self.name}, {unquote(self.value)}"


def note(name: str, value: str | None, why: str) -> str:
    """What goes with the news: whose pause it is, and why."""
    return json.dumps([name, value, why])


class BackOffs:
    """Those of which this process has heard, each until it is over.

    Redis knows of them all, and has no slot before their end: whoever has not heard loses nothing but the slots in
    hand, which it uses.

    Args:
        clock: the view of the Redis clock.
        changed: called with name and value of a bucket that backs off, for longer than before or no longer.
    """

    def __init__(self, clock: RedisClock, changed: Callable[[str, str | None], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._known: dict[tuple[str, str | None], BackOff] = {}
        #: When the first of them ends, monotonic seconds.
        self._next_end = float("inf")

    def hear(self, until_us: int, length_us: int, text: bytes) -> None:
        """Take in what Redis has announced. What cannot be read is somebody else's, and ignored."""
        try:
            name, value, why = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            return
        if not isinstance(name, str) or not isinstance(value, (str, type(None))):
            return
        now = time.monotonic()
        ends = min(self._clock.reached(until_us), now + length_us / 1e6)
        before = self._known.get((name, value))
        if not length_us:  # somebody has ended it
            if before:
                self._end(before, now)
            self._changed(name, value)
            return
        found = BackOff(name, value, _shown(why), until_us, ends, before.began if before else now)
        self._known[name, value] = found
        self._next_end = min(self._next_end, ends)
        if before is None:
            logger.warning("global-rate: %s: backs off for %.1f s: %s", found.bucket, length_us / 1e6, found.why)
        self._changed(name, value)

    def keep_up(self, now: float) -> float:
        """Let those end that are over; returns the monotonic instant of the next end."""
        if now < self._next_end:
            return self._next_end
        for it in [it for it in self._known.values() if it.ends <= now]:
            self._end(it, now)
            if self._clock.reached(it.until_us) > now:  # the clock has stepped back
                self._changed(it.name, it.value)
        self._next_end = min((it.ends for it in self._known.values()), default=float("inf"))
        return self._next_end

    def _end(self, it: BackOff, now: float) -> None:
        del self._known[it.name, it.value]
        logger.info("global-rate: %s: the back-off of %.1f s is over", it.bucket, now - it.began)

    def floor_us(self, name: str, value: str | None) -> int:
        """Before when a bucket has no slot (Redis clock, epoch us); 0 if it does not back off."""
        found = self._known.get((name, value))
        return found.until_us if found else 0

    def of(self, name: str) -> list[BackOff]:
        """Those of a name, the longest first. From any thread."""
        return sorted((it for it in list(self._known.values()) if it.name == name), key=lambda it: -it.ends)


def _shown(why: object) -> str:
    """On one line of the log, whoever has published it."""
    text = str(why)[:80]
    return text if text.isprintable() else ascii(text)
