"""The limits in force in this worker: what operators have set, over what tasks declare."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..limits.limit import Limits
from ..limits.override import LimitOverride, Override
from ..limits.redis_clock import RedisClock

logger = logging.getLogger(__name__)


class Overrides:
    """The latest override of each bucket that this worker knows, and when each of them ends.

    Args:
        clock: the worker's view of the Redis clock.
        changed: called with the name of a bucket that has to be configured again.
    """

    def __init__(self, clock: RedisClock, changed: Callable[[str], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._overrides: dict[str, Override] = {}
        self._unread: set[str] = set()
        self._ends: dict[str, int] = {}

    def learn(self, name: str, text: str | bytes) -> bool:
        """Apply and log an override; return whether it was new.

        One that cannot be read is logged once, and the bucket keeps the one that is known. Redis refuses slots to a
        worker with an outdated override, so the tasks of that bucket are held.
        """
        override = self._take_in(name, text)
        if override is None:
            return False
        rate = f" {override.limit_override.rate}" if override.limit_override and override.what == "set" else ""
        origin = override.origin
        why = f" ({origin.reason})" if origin.reason else ""
        logger.info("global-rate: %s: %s%s by %s%s", name, override.what, rate, origin.by, why)
        return True

    def load(self, name: str, text: bytes) -> None:
        """Apply an override from before the start of this worker, which logs what is in force by itself."""
        self._take_in(name, text)

    def _take_in(self, name: str, text: str | bytes) -> Override | None:
        try:
            override = Override.parse(text)
        except ValueError as exc:
            if name not in self._unread:
                self._unread.add(name)
                logger.error(
                    "global-rate: the override of %s in Redis cannot be read (%s): its tasks are held until "
                    "`celery global-rate reset` or `set` writes another one",
                    name,
                    exc,
                )
            return None
        known = self._overrides.get(name)
        if known is not None and override.rank <= known.rank:
            return None
        self._overrides[name] = override
        self._unread.discard(name)
        self._ends.pop(name, None)
        if override.limit_override and override.limit_override.until_us is not None:
            self._ends[name] = override.limit_override.until_us
        self._changed(name)
        return override

    def in_force(self, name: str, declared: Limits) -> tuple[Limits, int]:
        """The limits of a name: those that were set for it, or else what it declares.

        Returns:
            The limits, and before when nothing is released (Redis clock, epoch us; 0 for no such time).
        """
        override = self.get(name)
        if override is None:
            return declared, 0
        return override.limits_at(self._clock.now_us(time.monotonic()), declared), override.floor_us

    def keep_up(self, now: float) -> float:
        """Go back to the declared limit when an override has ended; returns the monotonic instant of the next end."""
        for name in [name for name, until_us in self._ends.items() if self._clock.reached(until_us) <= now]:
            del self._ends[name]
            self._changed(name)
        return min(map(self._clock.reached, self._ends.values()), default=float("inf"))

    def get(self, name: str) -> Override | None:
        """The override of a bucket."""
        return self._overrides.get(name)

    def limit_override(self, name: str) -> LimitOverride | None:
        """The overriding limit of a bucket, if one is in force now."""
        override = self.get(name)
        return override.limit_override_at(self._clock.now_us(time.monotonic())) if override else None

    def is_open(self, name: str, now_us: float) -> bool:
        """Whether a bucket has slots at an instant of the Redis clock, or is paused."""
        override = self._overrides.get(name)
        return override is None or now_us >= override.floor_us

    def text(self, name: str) -> str:
        """The override of a bucket as Redis keeps it; empty if there is none."""
        override = self._overrides.get(name)
        return override.text if override else ""

    @property
    def texts(self) -> dict[str, str]:
        """All of them, by the names of their buckets."""
        return {name: override.text for name, override in self._overrides.items()}
