"""What a worker knows and logs of its Redis: who it is, when it goes, and when it is back."""

from __future__ import annotations

import logging
import time

from redis.exceptions import ResponseError

from .server import Server

logger = logging.getLogger(__name__)


class Outage:
    """The time without answers, and who answered last.

    Args:
        address: the Redis, as logs may show it.

    Attributes:
        reason: why there are no answers at this moment; None where there are.
        server: what the Redis says of itself. A connection that is opened anew may lead to another.
    """

    def __init__(self, address: str) -> None:
        self.reason: str | None = None
        self.server = Server()
        self._address = address
        self._since = 0.0
        self._is_refusal = False

    def connected(self, error: Exception | None) -> None:
        """The connection has opened, or is lost with this error."""
        if error is not None:
            # The error may quote the URL, and with it a password.
            self._begin(type(error).__name__)
        elif self.reason is None:
            logger.info("global-rate: limits hold for the whole cluster, by the Redis at %s", self._address)

    def introduced(self, reply: object) -> None:
        """Redis has been asked by `INFO` who it is. It may refuse to tell, and that is no error."""
        if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
            return
        if not self._is_refusal:  # one that refused slots may do so again: only slots are an end of that
            self._end()
        server = Server.parse(reply)
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

    def _begin(self, reason: str) -> None:
        if self.reason is None:
            self.reason, self._since = reason, time.monotonic()
            logger.error(
                "global-rate: no answer from the Redis at %s (%s): tasks with a limit are held until it is back",
                self._address,
                reason,
            )

    def _end(self) -> None:
        self._is_refusal = False
        if self.reason is not None:
            self.reason = None
            logger.warning("global-rate: Redis answers again after %.1f s", time.monotonic() - self._since)
