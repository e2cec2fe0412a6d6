"""What a worker knows and logs of its Redis: who it is, when it goes, and when it is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from redis.exceptions import ResponseError, TimeoutError

from .bucket import HORIZON_S
from .duration import shown
from .limit import LONGEST_FILL_US
from .policy import Policy
from .server import Server

logger = logging.getLogger(__name__)

#: Without an answer for this long, in seconds, a connection is given up, and an outage counts.
SILENCE_S = 1.0
#: How often a long outage is told of, or a slow Redis, in seconds.
TOLD_AGAIN_S = 60.0
#: Answers that take so long, in seconds, and so many in a row, are slow: they leave little of the horizon.
SLOW_S, SLOW_IN_A_ROW = 0.8 * HORIZON_S, 10


class Outage:
    """The time without answers, and who answered last.

    Args:
        address: the Redis, as logs may show it.
        policy: what limited tasks do meanwhile.
        ended: called when Redis is back.

    Attributes:
        reason: why there are no answers at this moment; None where there are.
        server: what the Redis says of itself. A connection that is opened anew may lead to another.
    """

    def __init__(self, address: str, policy: Policy, ended: Callable[[], None]) -> None:
        self.reason: str | None = None
        self.server = Server()
        self._address = address
        self._policy = policy
        self._ended = ended
        self._since = self._tell_at = 0.0
        self._slow_in_a_row = 0
        self._slow_told = float("-inf")
        self._over_at = float("-inf")
        self._is_refusal = False

    @property
    def counts(self) -> bool:
        """Whether it has lasted long enough for the policy."""
        return self.reason is not None and time.monotonic() - self._since >= SILENCE_S

    @property
    def awake_us(self) -> int:
        """How long there has been no outage that counts, in microseconds: from before, no slot is saved."""
        return int(min(1e6 * (time.monotonic() - self._over_at), LONGEST_FILL_US))

    def connected(self, error: Exception | None) -> None:
        """The connection has opened, or is lost with this error."""
        if error is not None:
            # What Redis says is no secret; another error may quote the URL, and with it a password.
            reason = str(error) if isinstance(error, ResponseError) else type(error).__name__
            self._begin(reason, SILENCE_S if isinstance(error, TimeoutError) else 0.0)
        elif self.reason is None:
            logger.info("global-rate: limits hold for the whole cluster, by the Redis at %s", self._address)

    def introduced(self, reply: object) -> None:
        """Redis has been asked by `INFO` who it is. It may refuse to tell, and that is no error."""
        if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
            return
        server = Server.parse(reply)
        if server.keeps_limits and not self._is_refusal:  # only slots are an end of a refusal
            self._end()
        if server != self.server:
            self.server = server
            for warning in server.warnings:
                logger.warning("global-rate: the Redis at %s %s", self._address, warning)

    def replied(self, reply: object) -> None:
        """Redis has replied: with slots, or with an error that says why there are none."""
        if isinstance(reply, ResponseError):
            self._is_refusal = True
            self._begin(str(reply))
        else:
            self._end()

    def took(self, round_trip_s: float) -> None:
        """An answer with slots took this long, in seconds."""
        self._slow_in_a_row = self._slow_in_a_row + 1 if round_trip_s >= SLOW_S else 0
        if self._slow_in_a_row >= SLOW_IN_A_ROW and time.monotonic() >= self._slow_told + TOLD_AGAIN_S:
            self._slow_told = time.monotonic()
            logger.warning(
                "global-rate: the Redis at %s takes %.0f ms to answer: slots that come too late are not used. Use one "
                "that is nearer or less busy",
                self._address,
                1000 * round_trip_s,
            )

    def keep_up(self, now: float, held: int) -> float:
        """Tell that it counts, and once a minute that it lasts; returns the monotonic instant of the next time.

        The reason is the last one: a server that restarts refuses connections before it says that it is loading.
        """
        if self.reason is None:
            return float("inf")
        if now >= self._tell_at:
            self._tell_at = now + TOLD_AGAIN_S
            logger.warning(
                "global-rate: no answer from the Redis at %s (%s) for %s: %s; %d are held here",
                self._address,
                self.reason,
                shown(now - self._since),
                self._policy.text,
                held,
            )
        return self._tell_at

    def _begin(self, reason: str, silent_s: float = 0.0) -> None:
        if self.reason is None:
            self._since = time.monotonic() - silent_s
            self._tell_at = self._since + SILENCE_S
            self._policy.begin()
        self.reason = reason

    def _end(self) -> None:
        self._is_refusal = False
        if self.reason is not None:
            lasted_s = time.monotonic() - self._since
            if self.counts:
                self._over_at = time.monotonic()
                logger.warning("global-rate: Redis answers again after %.1f s", lasted_s)
            else:
                logger.info("global-rate: no answer from %s (%s) for %.1f s", self._address, self.reason, lasted_s)
            self.reason = None
            self._ended()
