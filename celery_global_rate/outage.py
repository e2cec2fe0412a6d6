"""What the log says of a Redis that is away: one line when it goes, one when it is back."""

from __future__ import annotations

import logging
import time

from redis.exceptions import ResponseError

logger = logging.getLogger(__name__)


class Outage:
    """The time without answers.

    Args:
        address: the Redis, as logs may show it.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._since: float | None = None

    def connected(self, error: Exception | None) -> None:
        """The connection has opened, or is lost with this error."""
        if error is not None:
            # The error may quote the URL, and with it a password.
            self._begin(type(error).__name__)
        elif self._since is None:
            logger.info("global-rate: limits hold for the whole cluster, by the Redis at %s", self._address)

    def replied(self, reply: object) -> None:
        """Redis has replied: with slots, or with an error that says why there are none."""
        if isinstance(reply, ResponseError):
            self._begin(str(reply))
        elif self._since is not None:
            logger.warning("global-rate: Redis answers again after %.1f s", time.monotonic() - self._since)
            self._since = None

    def _begin(self, reason: str) -> None:
        if self._since is None:
            self._since = time.monotonic()
            logger.error(
                "global-rate: no answer from the Redis at %s (%s): tasks with a limit are held until it is back",
                self._address,
                reason,
            )
