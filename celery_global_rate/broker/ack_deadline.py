"""Held messages must be renewed or requeued in time: a broker waits for an acknowledgement only for so long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from . import rabbitmq, redis, sqs
from .held_request import HeldRequest

#: From one attempt to the next, in seconds.
RETRY_S = 1.0


class Broker(Protocol):
    """What one kind of broker needs."""

    def due(self, request: HeldRequest) -> float:
        """The monotonic instant at which a request that begins to be held must be seen to."""

    def keep_up(self, now: float, held: Sequence[HeldRequest]) -> float | None:
        """See to held messages; returns the monotonic instant of the next time, or None if all are requeued."""


class AckDeadline:
    """Sees to held messages before their broker takes them for lost. Brokers without a deadline need nothing.

    Args:
        consumer: the worker's.
        consumer_timeout_s: RabbitMQ's, in seconds; 0 if it waits forever.
    """

    def __init__(self, consumer: Any, consumer_timeout_s: float) -> None:
        self._consumer = consumer
        self._rabbitmq = rabbitmq.ConsumerTimeout(consumer, consumer_timeout_s)
        self._broker: Broker | None = None
        #: The monotonic instant at which messages are seen to next.
        self.until = float("-inf")

    def begin(self) -> None:
        """The worker is connected to its broker, which may be another kind than before."""
        connection = self._consumer.connection
        channel = connection.default_channel
        self._broker = None
        if connection.transport.driver_type == "amqp":
            self._broker = self._rabbitmq
        elif connection.transport.driver_type == "sqs":
            self._broker = sqs.VisibilityTimeout(channel)
        elif redis.is_redis(channel):
            self._broker = redis.VisibilityTimeout(channel)

    def hold(self, request: HeldRequest) -> None:
        """One more is held. With an ETA it may have been received long ago."""
        if self._broker:
            self.until = min(self.until, self._broker.due(request))

    def keep_up(self, now: float, held: Sequence[HeldRequest]) -> bool:
        """See to held messages.

        Args:
            now: monotonic seconds.
            held: requests, in the order in which they would be delivered again.

        Returns:
            Whether all of them are requeued: they must not be started any more.
        """
        self.until = now + RETRY_S  # unless all goes well
        if self._consumer.task_consumer is None:
            return False
        until = self._broker.keep_up(now, held) if self._broker else float("inf")
        self.until = float("inf") if until is None else until
        return until is None
