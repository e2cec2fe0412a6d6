"""The queues that a worker consumes: which one a message came from, and how one is put aside."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from celery import signals
from kombu.transport import virtual

from .held_request import Arrival, HeldRequest
from .rabbitmq import can_restart_consumer


class Queues:
    """Notes the queue of each request, and puts queues aside.

    A queue that is put aside has no consumer on the channel, and is still one of the worker's: `active_queues` lists
    it, and `add_consumer`, `cancel_consumer` and a reconnect do with it what they always do. What it has brought stays
    with the worker.

    Args:
        consumer: the worker's.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        #: The queue that the message came from which is being delivered at this moment.
        self._delivering: str | None = None
        self._aside: frozenset[str] = frozenset()
        #: Of the consumers that were cancelled, by the names of their queues.
        self._tags: dict[str, str] = {}
        #: Of the requests with an ETA, which are held long after their messages were received.
        self._arrivals: WeakKeyDictionary[Any, Arrival] = WeakKeyDictionary()
        signals.task_received.connect(self._received, sender=consumer)

    def begin(self) -> None:
        """The worker is connected to its broker, and consumes nothing yet. Nothing is aside."""
        self.forget()
        channel = self._consumer.connection.default_channel
        consume = channel.basic_consume

        def basic_consume(queue: str, *args: Any, callback: Callable[[Any], Any], **kwargs: Any) -> Any:
            return consume(queue, *args, callback=partial(self._deliver, queue, callback), **kwargs)

        channel.basic_consume = basic_consume

    def forget(self) -> None:
        """The connection is gone, or about to be closed: what is aside is not consumed any more."""
        self._aside, self._tags = frozenset(), {}

    @property
    def names(self) -> set[str]:
        """All queues of this worker, those aside among them."""
        tasks = self._consumer.task_consumer
        return set(tasks._queues) if tasks else set()

    def can_spare(self, name: str) -> bool:
        """Whether a queue stays as it is without its consumer.

        One that is deleted with its last consumer, or when it has none for a time, does not; a single active consumer
        would pass to another worker, and a stream would begin somewhere else. On brokers for which kombu emulates
        queues, a fanout queue loses messages while it is not consumed.
        """
        tasks = self._consumer.task_consumer
        queue = tasks._queues.get(name) if tasks else None
        if queue is None or queue.auto_delete or queue.expires:
            return False
        if not can_restart_consumer(queue) or (queue.queue_arguments or {}).get("x-expires"):
            return False
        if self._is_amqp:
            return True
        channel, transport = tasks.channel, self._consumer.connection.transport
        # SQS goes on with the request that it has begun for a queue, and would begin another one beside it.
        is_known = hasattr(channel, "unacked_index_key") or not transport.implements.asynchronous
        return is_known and isinstance(channel, virtual.Channel) and queue.exchange.type != "fanout"

    def put_aside(self, names: frozenset[str]) -> None:
        """Let these queues be aside, and no others. Done soon: in the thread that consumes.

        Args:
            names: of queues; one that is consumed again, because an operator has added it, is put aside again.
        """
        tasks = self._consumer.task_consumer
        if tasks is None:
            return
        self._aside = names
        if names.symmetric_difference(self._tags) or not names.isdisjoint(tasks._active_tags):
            if self._consumer.hub:
                self._settle(tasks)
            else:
                self._consumer.call_soon(self._settle, tasks)

    def _settle(self, tasks: Any) -> None:
        """Cancel and consume until what is aside is what should be. Nothing here waits for the broker."""
        if tasks is not self._consumer.task_consumer:
            return
        for name in self._aside:
            tag = tasks._active_tags.pop(name, None)
            if tag is not None:
                getattr(tasks, "_active_queue_no_ack", {}).pop(name, None)  # kombu 5.7
                self._tags[name] = tag
                self._cancel(tasks.channel, name, tag)
        for name in set(self._tags) - self._aside:
            tag, queue = self._tags.pop(name), tasks._queues.get(name)
            if queue is not None and name not in tasks._active_tags:
                if self._is_amqp:
                    queue.declare(nowait=True)  # it may have been deleted, and without a consumer nobody was notified
                # With the tag that it had, late messages of the old consumer are the new one's.
                tasks._basic_consume(queue, consumer_tag=tag, nowait=True)

    def _cancel(self, channel: Any, name: str, tag: str) -> None:
        if self._is_amqp:
            channel.basic_cancel(tag, nowait=True)
            return
        # A call that waits for messages of this queue as well may be under way. Without the callback kombu would give
        # what it brings back to the wrong end.
        callbacks = channel.connection._callbacks
        callback = callbacks.get(name)
        channel.basic_cancel(tag)
        if callback is not None:
            callbacks[name] = callback

    @property
    def _is_amqp(self) -> bool:
        connection = self._consumer.connection
        return connection is not None and connection.transport.driver_type == "amqp"

    def _deliver(self, queue: str, callback: Callable[[Any], Any], message: Any) -> Any:
        before, self._delivering = self._delivering, queue  # the broker may deliver another one inside a callback
        try:
            return callback(message)
        finally:
            self._delivering = before

    def hold(self, request: Any) -> HeldRequest:
        """A request that begins to be held: while its message is being delivered, or when its ETA has come."""
        arrival = self._arrivals.pop(request, None) if request.eta else None
        return HeldRequest(request, arrival or self._arrival(request), time.time())

    def _received(self, request: Any, **kwargs: Any) -> None:
        if request.eta:
            self._arrivals[request] = self._arrival(request)

    def _arrival(self, request: Any) -> Arrival:
        return Arrival(self._delivering, self._rank(request), time.monotonic())

    def _rank(self, request: Any) -> int:
        """The priority of a request as its broker counts: on Redis the lowest number is first, on RabbitMQ the highest.

        RabbitMQ knows priorities only in queues that have a highest one.
        """
        tasks = self._consumer.task_consumer
        priority = request.delivery_info.get("priority")
        if not isinstance(priority, int):
            priority = 0
        channel: Any = getattr(tasks, "channel", None)
        if hasattr(channel, "priority_steps"):
            rank: int = channel.priority(max(channel.min_priority, min(priority, channel.max_priority)))
            return rank
        queue = tasks._queues.get(self._delivering) if self._is_amqp else None
        if queue is None:
            return 0
        most = queue.max_priority or (queue.queue_arguments or {}).get("x-max-priority")
        return -min(priority, most) if isinstance(most, int) else 0
