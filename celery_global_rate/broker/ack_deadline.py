"""Held messages and the broker, which waits for an acknowledgement only for so long."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from celery import signals

from .sqs import Visibility

logger = logging.getLogger(__name__)

#: The share of a Redis broker's visibility timeout after which held messages are shown to be in good hands.
SHOWN_SHARE = 1 / 3
#: The share of RabbitMQ's consumer timeout after which they go back to it; a loop may be blocked for as long again.
GIVEN_BACK_SHARE = 1 / 2
#: How often a quorum queue of RabbitMQ 4 delivers a message again before it drops it, if it has no other limit.
DELIVERY_LIMIT = 20
#: RabbitMQ may take so long to confirm a copy, in seconds.
CONFIRM_S = 1.0
#: From one attempt to the next, in seconds.
RETRY_S = 1.0
#: Headers that a copy does not take over: its body is not compressed any more, and the counts are the original's.
GONE = ("compression", "x-delivery-count", "x-acquired-count")


class AckDeadline:
    """Sees to held messages before their broker takes them for lost.

    kombu delivers a message of a Redis broker again after its visibility timeout. It takes the time of delivery for
    the last sign of life; a new one is written into its index. On Amazon SQS the timeout is restarted.

    RabbitMQ closes a channel that has not acknowledged a message within its consumer timeout, and delivers all of them
    again. It takes no sign of life, so all that is held goes back, in order, and comes again at once. Quorum queues
    count how often, and may drop what came too often: of a message that has used up half of what they allow, a copy
    goes to the end of its queue instead.

    Args:
        consumer: the worker's.
        consumer_timeout_s: RabbitMQ's, in seconds; 0 where it waits for ever.
    """

    def __init__(self, consumer: Any, consumer_timeout_s: float) -> None:
        self._consumer = consumer
        self._consumer_timeout_s = consumer_timeout_s or float("inf")
        #: The monotonic instant at which messages are seen to next.
        self.until = float("-inf")
        #: For how long a message may be held before it goes back to RabbitMQ, in seconds.
        self._held_s = float("inf")
        self._visibility: Visibility | None = None
        self._told: set[str] = set()

    def begin(self) -> None:
        """The worker is connected to its broker."""
        if self._is_rabbitmq:
            signals.task_received.connect(self._received, sender=self._consumer)
        connection = self._consumer.connection
        is_sqs = connection.transport.driver_type == "sqs"
        self._visibility = Visibility(connection.default_channel) if is_sqs else None

    def hold(self, request: Any) -> None:
        """One more is held. With an ETA it may have come long ago."""
        if self._held_s < float("inf"):
            self.until = min(self.until, request.received + self._held_s)
        if self._visibility:
            self.until = min(self.until, self._visibility.due(request))

    def keep_up(self, now: float, held: Sequence[Any]) -> bool:
        """See to held messages.

        Args:
            now: monotonic seconds.
            held: requests, in the order in which they are to come again.

        Returns:
            Whether all of them go back to the broker: they must not be started any more.
        """
        self.until = now + RETRY_S  # unless all goes well
        tasks = self._consumer.task_consumer
        if tasks is None:
            return False
        if self._is_rabbitmq:
            self._held_s = self._timeout_s * GIVEN_BACK_SHARE
            oldest = min((request.received for request in held), default=now)
            is_over = now - oldest >= self._held_s
            self.until = (now if is_over else oldest) + self._held_s
            if is_over:
                self._give_back(held)
            return is_over
        if hasattr(tasks.channel, "unacked_index_key"):
            _show(tasks.channel, held)
            self.until = now + tasks.channel.visibility_timeout * SHOWN_SHARE
        elif self._visibility:
            self.until = now + self._visibility.hide(held)
        else:
            self.until = float("inf")
        return False

    @property
    def _is_rabbitmq(self) -> bool:
        connection = self._consumer.connection
        return connection is not None and connection.transport.driver_type == "amqp"

    @property
    def _timeout_s(self) -> float:
        """The shortest that one of the queues has, in seconds."""
        own_ms = [_argument(queue, "x-consumer-timeout", float("inf")) for queue in self._consumer.task_consumer.queues]
        return min([self._consumer_timeout_s, *(own / 1000 for own in own_ms)])

    def _give_back(self, held: Sequence[Any]) -> None:
        self._tell(
            logging.INFO,
            "global-rate: every %g s held messages are requeued, because RabbitMQ waits only %g s for their "
            "acknowledgement; it delivers them again",
            self._held_s,
            self._held_s / GIVEN_BACK_SHARE,
        )
        self._consumer.call_soon(partial(self._hand_back, held))

    def _received(self, request: Any, **kwargs: Any) -> None:
        """Note when a message has come, because one with an ETA is held much later."""
        request.received = time.monotonic()

    def _is_worn(self, request: Any) -> bool:
        """Whether its queue would soon drop this message."""
        count = request.message.headers.get("x-delivery-count")
        for queue in self._consumer.task_consumer.queues if count else ():
            if queue.name == request.queue_name:
                limit = _argument(queue, "x-delivery-limit", DELIVERY_LIMIT)
                return bool(0 < limit <= 2 * count)
        return False

    def _hand_back(self, requests: Sequence[Any]) -> None:
        consumer = self._consumer
        try:
            self._copy([request for request in requests if self._is_worn(request)])
            for request in requests:
                if not request.message.acknowledged:
                    request.message.requeue()
        except consumer.connection_errors + consumer.channel_errors as exc:  # then all of them are redelivered
            logger.warning("global-rate: held messages could not be returned to RabbitMQ: %r", exc)

    def _copy(self, requests: Sequence[Any]) -> None:
        """Send copies of messages to the end of their queues. A worker that ends before it acknowledges leaves both."""
        if not requests:
            return
        self._tell(
            logging.WARNING,
            "global-rate: queue %s may drop messages that come too often (x-delivery-limit): copies of held ones go to "
            "its end. Raise its x-delivery-limit or the consumer_timeout of RabbitMQ to keep them in order",
            requests[0].queue_name,
        )
        with self._consumer.connection.channel() as channel:
            for request in requests:
                message = request.message
                properties = {**message.properties}
                headers = properties.pop("application_headers", {})
                named = {name: properties.pop(name, None) for name in ("priority", "content_type", "content_encoding")}
                headers = {name: value for name, value in headers.items() if name not in GONE}
                copy = channel.prepare_message(message.body, headers=headers, properties=properties, **named)
                channel.basic_publish_confirm(copy, "", request.queue_name, confirm_timeout=CONFIRM_S)
                message.ack()

    def _tell(self, level: int, text: str, *args: object) -> None:
        """Log a line once."""
        if text not in self._told:
            self._told.add(text)
            logger.log(level, text, *args)


def _argument(queue: Any, name: str, default: float) -> float:
    return (queue.queue_arguments or {}).get(name, default)  # type: ignore[no-any-return]


def _show(channel: Any, held: Sequence[Any]) -> None:
    """Show held messages to be in good hands. What is gone from the index, acknowledged or taken, stays gone."""
    now = time.time()
    if signs := {request.message.delivery_tag: now for request in held}:
        with channel.conn_or_acquire() as client:
            client.zadd(channel.unacked_index_key, signs, xx=True)
