"""RabbitMQ: held messages are requeued before its consumer timeout, and consumers restarted only where that is safe."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from .held_request import HeldRequest

logger = logging.getLogger(__name__)

#: The share of the consumer timeout after which held messages are requeued; a loop may be blocked for as long again.
REQUEUE_SHARE = 1 / 2
#: How often a quorum queue of RabbitMQ 4 delivers a message again before it drops it, if it has no other limit.
DELIVERY_LIMIT = 20
#: RabbitMQ may take this long to confirm a copy, in seconds.
CONFIRM_S = 1.0
#: Headers that a copy does not take over: its body is not compressed any more, and the counts are the original's.
GONE = ("compression", "x-delivery-count", "x-acquired-count")


class ConsumerTimeout:
    """Requeues held messages before RabbitMQ's consumer timeout runs out.

    RabbitMQ closes a channel that has not acknowledged a message within its consumer timeout, and delivers all of them
    again. The timeout of a message cannot be renewed, so all held ones are requeued, in order, and are delivered again
    at once. Quorum queues count deliveries and may drop a message that was delivered too often: once it has used up
    half of what they allow, a copy goes to the end of its queue instead.

    Args:
        consumer: the worker's.
        consumer_timeout_s: of the server, in seconds; 0 if it waits forever.
    """

    def __init__(self, consumer: Any, consumer_timeout_s: float) -> None:
        self._consumer = consumer
        self._consumer_timeout_s = consumer_timeout_s or float("inf")
        #: For how long a message may be held, in seconds. Known once the queues are consumed.
        self._longest_s = float("inf")
        self._logged: set[str] = set()

    def due(self, request: HeldRequest) -> float:
        """The monotonic instant by which a request that begins to be held must be requeued."""
        return request.received + self._longest_s

    def keep_up(self, now: float, held: Sequence[HeldRequest]) -> float | None:
        """Requeue all if it is time for the oldest; else return the monotonic instant at which it will be."""
        self._longest_s = self._timeout_s * REQUEUE_SHARE
        oldest = min((request.received for request in held), default=now)
        if now - oldest < self._longest_s:
            return oldest + self._longest_s
        self._log_once(
            logging.INFO,
            "global-rate: every %g s held messages are requeued, because RabbitMQ waits only %g s for their "
            "acknowledgement; it delivers them again",
            self._longest_s,
            self._longest_s / REQUEUE_SHARE,
        )
        self._consumer.call_soon(partial(self._requeue, held))
        return None

    @property
    def _timeout_s(self) -> float:
        """The shortest consumer timeout of the server and the queues, in seconds."""
        own_ms = [_argument(queue, "x-consumer-timeout", float("inf")) for queue in self._consumer.task_consumer.queues]
        return min([self._consumer_timeout_s, *(own / 1000 for own in own_ms)])

    def _requeue(self, requests: Sequence[HeldRequest]) -> None:
        consumer = self._consumer
        try:
            self._copy([request for request in requests if self._is_worn(request)])
            for request in requests:
                if not request.message.acknowledged:
                    request.message.requeue()
        except consumer.connection_errors + consumer.channel_errors as exc:  # then all of them are redelivered
            logger.warning("global-rate: held messages could not be returned to RabbitMQ: %r", exc)

    def _is_worn(self, request: HeldRequest) -> bool:
        """Whether its queue would soon drop this message."""
        count = request.message.headers.get("x-delivery-count")
        for queue in self._consumer.task_consumer.queues if count else ():
            if queue.name == request.queue_name:
                limit = _argument(queue, "x-delivery-limit", DELIVERY_LIMIT)
                return bool(0 < limit <= 2 * count)
        return False

    def _copy(self, requests: Sequence[HeldRequest]) -> None:
        """Send copies of messages to the end of their queues. A worker that ends before it acknowledges leaves both."""
        if not requests:
            return
        self._log_once(
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

    def _log_once(self, level: int, text: str, *args: object) -> None:
        if text not in self._logged:
            self._logged.add(text)
            logger.log(level, text, *args)


def can_restart_consumer(queue: Any) -> bool:
    """Whether a new consumer of a queue continues where the old one ends.

    A single active consumer would pass to another worker, and a stream starts over for each consumer.
    """
    arguments = (queue.queue_arguments or {}) if queue is not None else {}
    return (
        queue is not None
        and not arguments.get("x-single-active-consumer")
        and arguments.get("x-queue-type") != "stream"
    )


def _argument(queue: Any, name: str, default: float) -> float:
    return (queue.queue_arguments or {}).get(name, default)  # type: ignore[no-any-return]
