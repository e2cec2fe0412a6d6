"""All that one process has to do with its Redis while it shares limits with others, assembled."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from ..limits.redis_clock import RedisClock
from ..limits.timing import REPLY_TIMEOUT_S
from .back_offs import BackOffs, note
from .cause import cause
from .heartbeat import Heartbeat
from .hub_connection import REOPEN_LATE_S, HubConnection
from .limiter import Limiter
from .location import Location
from .outage import ALL, Outage
from .outage_policies import POLICIES
from .override_feed import OverrideFeed
from .overrides import Overrides
from .scripts import BACK_OFF, back_off_call, news_channel
from .waker import Waker

logger = logging.getLogger(__name__)


class Session:
    """The connection, and what is known by it: the clock, operators' overrides, how many others there are, outages.

    Args:
        location: of the Redis.
        on_outage: the name of a policy.
        worker: a name that is unique to this process.
        waker: of the loop that this lives in.
        wake: asks for a turn of the chores at a monotonic instant.
        in_one_turn: a context in which answers that have arrived together are given.
        held: how many wait for slots.
        recovered: called when Redis is back: slots that the policy has given out are void.
        on_override: called with the name of a bucket that has a new override.
        on_back_off: called with name and value of a bucket that backs off, for longer than before or no longer.
        connected: called when the connection has opened.
        is_active: whether slots are needed now; without a need nothing is sent.

    Attributes:
        clock: this process's view of the Redis clock.
        overrides: what operators have set.
        back_offs: the pauses that APIs have asked for.
        limiter: where slots come from.
        outage: whether there is one.
        heartbeat: how many processes share the limits.
    """

    def __init__(
        self,
        location: Location,
        on_outage: str,
        worker: str,
        waker: Waker,
        wake: Callable[[float], None],
        in_one_turn: Callable[[], AbstractContextManager[None]],
        held: Callable[[], int],
        recovered: Callable[[], None],
        on_override: Callable[[str], None],
        on_back_off: Callable[[str, str | None], None],
        connected: Callable[[], None] = lambda: None,
        is_active: Callable[[], bool] = lambda: True,
    ) -> None:
        self._wake, self._held = wake, held
        self._connected, self._is_active = connected, is_active
        self._connection = HubConnection(location.connection, waker, self._changed, in_one_turn=in_one_turn)
        self.clock, prefix = RedisClock(), location.key_prefix
        channel = news_channel(prefix, location.database)
        self._prefix, self._channel, self._address = prefix, channel, location.address
        self.heartbeat = Heartbeat(self._connection, prefix, worker, channel, wake, is_active)
        policy = POLICIES[on_outage](self.heartbeat, self.clock, random.random)
        self.outage = Outage(location.address, policy, recovered)
        self.overrides = Overrides(self.clock, on_override)
        self.back_offs = BackOffs(self.clock, on_back_off)
        self.limiter = Limiter(
            self._connection, prefix, worker, self.clock, self.outage, policy, self.overrides, self.back_offs
        )
        self._feed = OverrideFeed(
            location.connection,
            waker,
            self._connection,
            prefix,
            channel,
            self.overrides,
            self.heartbeat,
            self.back_offs,
            wake,
        )

    @property
    def chores(self) -> Mapping[str, Callable[[float], float]]:
        """What is to be done from time to time, by what it does."""
        return {
            "looking for news": self._look,
            "counting workers": self.heartbeat.keep_up,
            "watching Redis": self._watch,
            "keeping overrides": self.overrides.keep_up,
            "backing off": self.back_offs.keep_up,
        }

    @property
    def trouble(self) -> str | None:
        """Why there are no slots now, as far as it is known; None if there are."""
        silent_s = self._connection.silent_s
        if self.outage.reason is None and silent_s > REPLY_TIMEOUT_S:
            return f"silent for {silent_s:.1f} s"
        return self.outage.reason

    @property
    def is_reachable(self) -> bool:
        """Whether a call is answered: by Redis, or by the policy in its place."""
        return self._connection.is_open or self.is_away

    @property
    def is_away(self) -> bool:
        """Whether there is an outage that counts: the policy gives out the slots."""
        return self.outage.counts(ALL)

    def open(self) -> None:
        """Start connecting, unless it is connected or connecting, or it is too soon."""
        self._connection.open()

    def attach(self, hub: Any) -> None:
        """Move into this loop."""
        self._connection.attach(hub)
        self._feed.attach(hub)

    def detach(self) -> None:
        """Let go of the loop."""
        self.heartbeat.leave()
        self._feed.detach()
        self._connection.detach()

    def back_off(self, name: str, value: str | None, windows: Iterable[str], length_us: int, why: str) -> None:
        """Tell Redis, and so all others, that an API has asked for a pause.

        Args:
            name: of the bucket.
            value: of its key, as a part of a Redis key; or None.
            windows: of its limits for that value.
            length_us: of the pause, in microseconds.
            why: for logs.
        """
        call = back_off_call(self._prefix, name, windows, length_us, self._channel, note(name, value, why))
        self._connection.send(("EVAL", BACK_OFF.source, *call), partial(self._told, name))

    def _told(self, name: str, answer: object) -> None:
        if isinstance(answer, Exception):
            logger.warning(
                "global-rate: %s does not back off: the Redis at %s is not reached: %s",
                name,
                self._address,
                cause(answer),
            )

    def inquire(self) -> None:
        """Ask Redis what it is."""
        self._connection.send(("INFO",), self.outage.introduced)

    def _changed(self, error: Exception | None) -> None:
        self.outage.connected(error)
        self._wake(time.monotonic() + REOPEN_LATE_S)
        if error is None:
            self.inquire()
            self._feed.look()
            self.heartbeat.beat(time.monotonic())
            self._connected()

    def _look(self, now: float) -> float:
        return self._feed.keep_up(now) if self._is_active() else float("inf")

    def _watch(self, now: float) -> float:
        if not self._is_active():
            return float("inf")
        next_check = self.outage.keep_up(now, self._held())
        if self.outage.reason is None:
            return next_check
        self._connection.open()  # nobody else does while nothing is held
        return min(next_check, now + REOPEN_LATE_S)
