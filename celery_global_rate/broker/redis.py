"""A Redis broker: kombu keeps there what is not acknowledged, and delivers it again after a visibility timeout."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from queue import Empty
from typing import Any

from .held_request import HeldRequest

#: The share of the visibility timeout after which that of held messages is renewed.
RENEWAL_SHARE = 1 / 3


def is_redis(channel: Any) -> bool:
    """Whether a channel of kombu is one to a Redis broker."""
    return hasattr(channel, "unacked_index_key")


class VisibilityTimeout:
    """Renews the visibility timeout of held messages.

    kombu delivers a message again when its entry in an index of delivery times is older than the timeout. We write the
    present into that entry. What is gone from the index, acknowledged or taken by another worker, stays gone.

    Args:
        channel: of the messages that the worker takes.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def due(self, request: HeldRequest) -> float:
        """Never: the next renewal comes soon enough for each message that is held meanwhile."""
        return float("inf")

    def keep_up(self, now: float, held: Sequence[HeldRequest]) -> float:
        """Renew the timeout of held messages; returns the monotonic instant of the next time."""
        channel, delivered_at = self._channel, time.time()
        if entries := {request.message.delivery_tag: delivered_at for request in held}:
            with channel.conn_or_acquire() as client:
                client.zadd(channel.unacked_index_key, entries, xx=True)
        return now + channel.visibility_timeout * RENEWAL_SHARE  # type: ignore[no-any-return]


class LostConnections:
    """Connections that were lost, and held messages that could not be returned to a Redis broker by them.

    Celery 5.7 collects a lost connection and then closes it as well. If a Redis broker refuses connections, the
    first attempt ends early, and the second one finds a channel with unacknowledged messages and no way to its server
    any more: an `AttributeError` that ends the worker. Tasks with an ETA do this to stock Celery, held ones would do
    it to us. So the first attempt is the last.

    What is held would be redelivered after the visibility timeout, and by kombu once more when the worker ends, even
    if another one has it by then. So it is requeued as soon as there is a connection again. What is with the pool is
    not: kombu may still acknowledge it.

    Args:
        held: the requests that are held.
    """

    def __init__(self, held: Callable[[], Iterable[HeldRequest]]) -> None:
        self._held = held
        self._lost: list[tuple[Any, list[str], float]] = []  # kombu's QoS, tags of what was held, epoch seconds

    def watch(self, connection: Any) -> None:
        """Let a connection be given up for good the first time.

        Args:
            connection: kombu's, as the consumer has it.
        """
        collect = connection.collect

        def collect_for_good(*args: Any, **kwargs: Any) -> None:
            channel = connection._default_channel
            try:
                collect(*args, **kwargs)
            finally:
                connection._default_channel = None
                if is_redis(channel):
                    tags = [request.message.delivery_tag for request in self._held()]
                    self._lost.append((channel.qos, tags, time.time()))

        connection.collect = collect_for_good

    def requeue(self, connection: Any) -> None:
        """Requeue what was held when connections were lost, in its order, except for what another worker has by now.

        Args:
            connection: a new one to the same broker.
        """
        while self._lost:
            qos, tags, lost_at = self._lost[-1]
            channel, brought = connection.default_channel, qos._delivered
            with channel.conn_or_acquire() as client:
                index = _key(channel, client, "ZSCORE", channel.unacked_index_key)
                while tags:
                    tag = tags[-1]  # each goes to the head of its queue
                    if tag in brought:  # kombu has not returned it
                        taken_at = client.zscore(index, tag)
                        if taken_at is not None and taken_at <= lost_at:
                            channel.qos.restore_by_tag(tag, client)
                        del brought[tag]
                    tags.pop()
            self._lost.pop()


def keep_client(channel: Any) -> None:
    """Let a channel to a Redis broker use one client of redis-py for all that it sends.

    kombu makes one for each message that it notes down, and another one for each that it acknowledges. They hold
    nothing but the channel's pool of connections, and where tasks are instant they take a tenth of the time of the
    worker's main process, about as much as a limit does.

    Args:
        channel: of the messages that the worker takes.
    """
    if not is_redis(channel):
        return
    create = channel._create_client
    kept: list[Any] = []

    def create_client(asynchronous: bool = False) -> Any:
        if asynchronous:  # these are kept by kombu, and have another pool
            return create(asynchronous=True)
        if not kept or kept[0].connection_pool is not channel.pool:  # a lost connection, and with it its pool
            kept[:] = [create()]
        return kept[0]

    channel._create_client = create_client


def acknowledge_in_turn(channel: Any) -> None:
    """Let greenlets that acknowledge at the same instant wait for one another.

    Celery 5.7 acknowledges in the greenlet of the task. On a Redis broker each takes a connection from the channel's
    pool of ten, which raises an error when it is empty: the task has run, and its message is redelivered. Celery starts
    greenlets one at a time, as messages come. We may release all that is held at once. A third of the pool is theirs:
    to requeue takes two connections, and the worker takes messages and restores old ones meanwhile.

    Args:
        channel: of the messages that the worker takes.
    """
    if not is_redis(channel):
        return
    turns = threading.Semaphore(max(1, channel.max_connections // 3))

    def in_turn(settle: Callable[..., None]) -> Callable[..., None]:
        @wraps(settle)
        def wait_and_settle(*args: Any, **kwargs: Any) -> None:
            with turns:
                settle(*args, **kwargs)

        return wait_and_settle

    channel.basic_ack, channel.basic_reject = in_turn(channel.basic_ack), in_turn(channel.basic_reject)


def requeue_in_order(tasks: Any, messages: Sequence[Any]) -> None:
    """Requeue messages at the head of their queues, in their order; kombu's own way would put them at the end.

    Args:
        tasks: the consumer of them, which is cancelled.
        messages: not acknowledged.
    """
    channel = tasks.channel
    qos = channel.qos
    with channel.conn_or_acquire() as client:

        def restore(tag: str) -> None:
            qos.restore_by_tag(tag, client)
            qos._delivered.pop(tag, None)

        def return_late(raw: Any) -> None:
            message = channel.Message(raw, channel=channel)
            qos.append(message, message.delivery_tag)
            restore(message.delivery_tag)

        for message in reversed(messages):
            restore(message.delivery_tag)
        if channel._in_poll:  # a call that waits for a message has brought one of these, and nobody would read it
            late = {queue.name: return_late for queue in tasks.queues}
            channel.connection._callbacks.update(late)
            try:
                with suppress(Empty):
                    channel._brpop_read()
            finally:
                for name in late:
                    channel.connection._callbacks.pop(name, None)


def _key(channel: Any, client: Any, command: str, key: str) -> str:
    """A key of kombu's, for a command of ours: kombu puts its `global_keyprefix` only to the commands that it uses."""
    prefix: str = getattr(channel, "global_keyprefix", "")
    return key if command in getattr(client, "PREFIXED_SIMPLE_COMMANDS", ()) else prefix + key
