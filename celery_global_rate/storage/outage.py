"""What a worker knows and logs about its Redis: its identity, and when it is away, refuses, or is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis.exceptions import ResponseError, TimeoutError

from ..limits.duration import format_duration
from ..limits.limit import LONGEST_FILL_US
from ..limits.timing import HORIZON_S, LONGEST_SLEEP_S, SILENCE_S
from .cause import cause
from .outage_policies import Policy
from .server_info import Server

logger = logging.getLogger(__name__)

#: How often a long outage or a slow Redis is logged, in seconds.
LOG_AGAIN_S = 60.0
#: A bucket that holds tasks asks for slots more often than this, in seconds.
ASKED_S = 2 * LONGEST_SLEEP_S
#: Answers that take so long, in seconds, and so many in a row, are slow: they leave little of the horizon.
SLOW_S, SLOW_IN_A_ROW = 0.8 * HORIZON_S, 10
#: What stands for all buckets.
ALL = ""


@dataclass(frozen=True)
class Trouble:
    """Why there are no slots.

    Attributes:
        since: when it began, monotonic seconds.
        heard: when it was last noticed.
        reason: as logs may show it.
    """

    since: float
    heard: float
    reason: str


class Outage:
    """The time without slots: of all buckets if there is no connection, of one if Redis refuses it.

    Args:
        address: the Redis, as logs may show it.
        policy: what limited tasks do meanwhile.
        ended: called when slots are there again, of all buckets or of one.

    Attributes:
        server: the Redis as it describes itself; after a reconnect it may be another one.
    """

    def __init__(self, address: str, policy: Policy, ended: Callable[[], None]) -> None:
        self.server = Server()
        self._address = address
        self._policy = policy
        self._ended = ended
        self._troubles: dict[str, Trouble] = {}
        self._since = self._log_at = 0.0
        self._slow_in_a_row = 0
        self._slow_logged = float("-inf")
        self._over_at = float("-inf")

    @property
    def reason(self) -> str | None:
        """Why there are no slots now, by the latest error; None if there are."""
        return self._troubles[self._latest].reason if self._troubles else None

    @property
    def _latest(self) -> str:
        return max(self._troubles, key=lambda it: self._troubles[it].heard)

    def counts(self, name: str) -> bool:
        """Whether it has lasted long enough for the policy to give out the slots of a bucket."""
        troubles = (self._troubles[it] for it in (ALL, name) if it in self._troubles)
        return any(time.monotonic() - trouble.since >= SILENCE_S for trouble in troubles)

    @property
    def awake_us(self) -> int:
        """How long there has been no outage that counts, in microseconds: from before, no slot is saved."""
        return int(min(1e6 * (time.monotonic() - self._over_at), LONGEST_FILL_US))

    def connected(self, error: Exception | None) -> None:
        """The connection has opened, or is lost with this error."""
        if error is not None:
            self._begin(ALL, cause(error), SILENCE_S if isinstance(error, TimeoutError) else 0.0)
        elif not self._troubles:
            logger.info("global-rate: limits are cluster-wide, kept by the Redis at %s", self._address)

    def introduced(self, reply: object) -> None:
        """Redis has replied to `INFO`. It may refuse to, and that is not an error."""
        if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
            return
        server = Server.parse(reply)
        if server.keeps_limits:
            self._end(ALL)
        if server != self.server:
            self.server = server
            for warning in server.warnings:
                logger.warning("global-rate: the Redis at %s %s", self._address, warning)

    def replied(self, name: str, reply: object) -> None:
        """Redis has replied for a bucket: with slots, or with an error that names the reason."""
        if isinstance(reply, ResponseError):
            self._begin(name, f"{name}: {cause(reply)}")
        else:
            self._end(ALL)
            self._end(name)

    def took(self, round_trip_s: float) -> None:
        """An answer with slots took this long, in seconds."""
        self._slow_in_a_row = self._slow_in_a_row + 1 if round_trip_s >= SLOW_S else 0
        if self._slow_in_a_row >= SLOW_IN_A_ROW and time.monotonic() >= self._slow_logged + LOG_AGAIN_S:
            self._slow_logged = time.monotonic()
            logger.warning(
                "global-rate: the Redis at %s takes %.0f ms to answer: late slots go unused. Use one that "
                "is nearer or less busy",
                self._address,
                1000 * round_trip_s,
            )

    def keep_up(self, now: float, held: int) -> float:
        """Log that it has begun, and once a minute that it lasts; returns the monotonic instant of the next time.

        The reason is the last one: a server that restarts refuses connections before it says that it is loading.
        """
        for name in [it for it, trouble in self._troubles.items() if it != ALL and now >= trouble.heard + ASKED_S]:
            del self._troubles[name]
            if not self._troubles:
                logger.warning("global-rate: no task waits for a bucket that the Redis at %s refused", self._address)
        if not self._troubles:
            return float("inf")
        if now >= self._log_at:
            self._log_at = now + LOG_AGAIN_S
            logger.warning(
                "global-rate: no %s from the Redis at %s (%s) for %s: %s; %d tasks held",
                "answer" if self._latest == ALL else "slots",
                self._address,
                self.reason,
                format_duration(now - self._since),
                self._policy.text,
                held,
            )
        return min(self._log_at, now + ASKED_S)

    def _begin(self, name: str, reason: str, silent_s: float = 0.0) -> None:
        now = time.monotonic()
        if not self._troubles:
            self._since = now - silent_s
            self._log_at = self._since + SILENCE_S
            self._policy.begin()
        since = self._troubles[name].since if name in self._troubles else now - silent_s
        self._troubles[name] = Trouble(since, now, reason)

    def _end(self, name: str) -> None:
        trouble, now = self._troubles.pop(name, None), time.monotonic()
        if trouble is None:
            return
        if now - trouble.since >= SILENCE_S:
            self._over_at = now
        if not self._troubles and now - self._since >= SILENCE_S:
            what = "answers" if name == ALL else "gives out slots"
            logger.warning("global-rate: Redis %s again after %.1f s", what, now - self._since)
        elif not self._troubles:
            logger.info(
                "global-rate: no %s from %s (%s) for %.1f s",
                "answer" if name == ALL else "slots",
                self._address,
                trouble.reason,
                now - self._since,
            )
        self._ended()
