"""The worker's connection to its broker, and what held messages need of it."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from queue import Empty
from typing import Any

logger = logging.getLogger(__name__)

#: How soon a worker without event loop sees that it may take more messages, in seconds.
LOOK_UP_S = 0.1


def look_up_often(connection: Any, last_held: Callable[[], float]) -> None:
    """Let a worker's synchronous loop do more than wait for messages, while tasks are held and a moment after.

    It waits two seconds for the next one, and a window that is full gets none: a transport of kombu's own making, Redis
    among them, does not look at the prefetch count meanwhile, and Celery before 5.7 acknowledges nothing.

    Args:
        connection: kombu's, as the consumer has it.
        last_held: the last instant at which a task was held (monotonic seconds).
    """
    drain_events = connection.drain_events

    def drain_often(timeout: float | None = None, **kwargs: Any) -> Any:
        if timeout and time.monotonic() - last_held() < timeout:
            timeout = min(timeout, LOOK_UP_S)
        return drain_events(timeout=timeout, **kwargs)

    connection.drain_events = drain_often


def acknowledge_in_turn(channel: Any) -> None:
    """Let greenlets that acknowledge at the same instant wait for one another.

    Celery 5.7 acknowledges in the greenlet of the task. On a Redis broker each takes a connection from the channel's
    pool of ten, which raises an error when it is empty: the task has run, and its message is redelivered. Celery starts
    greenlets one at a time, as messages come. We may release all that is held at once. A third of the pool is theirs:
    to requeue takes two connections, and the worker takes messages and restores old ones meanwhile.

    Args:
        channel: of the messages that the worker takes.
    """
    if not hasattr(channel, "unacked_index_key"):
        return
    turns = threading.Semaphore(max(1, channel.max_connections // 3))

    def in_turn(settle: Callable[..., None]) -> Callable[..., None]:
        @wraps(settle)
        def wait_and_settle(*args: Any, **kwargs: Any) -> None:
            with turns:
                settle(*args, **kwargs)

        return wait_and_settle

    channel.basic_ack, channel.basic_reject = in_turn(channel.basic_ack), in_turn(channel.basic_reject)


class Losses:
    """Lost connections, and what they had brought where a Redis broker could not take it back.

    Celery 5.7 collects a lost connection and then closes it as well. Where a Redis broker refuses connections, the
    first attempt ends early, and the second one finds a channel with unacknowledged messages and no way to its server
    any more: an `AttributeError` that ends the worker. Tasks with an ETA do this to stock Celery, held ones would do
    it to us. So the first attempt is the last.

    What is held would be redelivered after the visibility timeout, and by kombu once more when the worker ends, even
    if another one has it by then. So it is given back as soon as there is a connection again. What is with the pool is
    not: kombu may still acknowledge it.

    Args:
        held: the requests that are held.
    """

    def __init__(self, held: Callable[[], Iterable[Any]]) -> None:
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
                if hasattr(channel, "unacked_index_key"):
                    tags = [request.message.delivery_tag for request in self._held()]
                    self._lost.append((channel.qos, tags, time.time()))

        connection.collect = collect_for_good

    def give_back(self, connection: Any) -> None:
        """Have what was held redelivered, in its order, except for what another worker has taken since.

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
                    if tag in brought:  # kombu has not given it back
                        taken_at = client.zscore(index, tag)
                        if taken_at is not None and taken_at <= lost_at:
                            channel.qos.restore_by_tag(tag, client)
                        del brought[tag]
                    tags.pop()
            self._lost.pop()


def give_back(consumer: Any, requests: Sequence[Any]) -> None:
    """Return held messages to the broker at once, in their order, where the worker ends and waits for its tasks.

    Args:
        consumer: the worker's, which takes no more messages then.
        requests: what was held.
    """
    messages = [request.message for request in requests if not request.message.acknowledged]
    tasks = consumer.task_consumer
    if not messages or tasks is None:
        return
    try:
        tasks.cancel()  # or they would come here again
        if hasattr(tasks.channel, "unacked_index_key"):
            _restore(tasks, messages)
        else:
            for message in messages:
                message.requeue()
    except consumer.connection_errors + consumer.channel_errors as exc:  # then they return with the connection
        logger.warning("global-rate: held messages could not be returned to the broker: %s", type(exc).__name__)


def _restore(tasks: Any, messages: Sequence[Any]) -> None:
    channel = tasks.channel
    qos = channel.qos
    with channel.conn_or_acquire() as client:

        def restore(tag: str) -> None:
            qos.restore_by_tag(tag, client)  # to the head of its queue; rejecting it would put it at the end
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


def can_begin_anew(queue: Any) -> bool:
    """Whether a new consumer of a queue goes on where the old one ends.

    A single active consumer would pass to another worker, and a stream starts over for each consumer.
    """
    arguments = (queue.queue_arguments or {}) if queue is not None else {}
    return (
        queue is not None
        and not arguments.get("x-single-active-consumer")
        and arguments.get("x-queue-type") != "stream"
    )


def renewal(consumer: Any, qos: Any) -> Callable[[int], None] | None:
    """How the worker's consumer is restarted with another prefetch count, if the count is fixed when it starts.

    RabbitMQ counts for each consumer where one of the queues is a quorum queue, and kombu 5.7 asks it to on every
    RabbitMQ from 4.0 on. A change of the prefetch count is then for consumers to come.

    Args:
        consumer: the worker's.
        qos: its `kombu.common.QoS` of this moment, which Celery's loop asks to tell the broker what has changed.

    Returns:
        A function that has it done the next time Celery's loop turns, and takes how many slots more than Celery asks
        for the window has; or None where the window follows each change. The messages that the old consumer has
        brought stay with the worker, and are none of the new one's. The new one begins before the old one ends.
    """
    tell = qos.callback
    if consumer.connection is None or consumer.connection.transport.driver_type != "amqp":  # None: it is lost
        return None
    if inspect.getclosurevars(tell).nonlocals["qos_global"]:  # Celery 5.7 has an attribute, too; here all have it
        return None
    lent: int | None = None

    def tell_or_renew(prefetch_count: int) -> None:
        nonlocal lent
        if lent is None:
            tell(prefetch_count=prefetch_count)
            return
        more, lent = lent, None
        tasks = consumer.task_consumer
        tasks.qos(prefetch_count=consumer.initial_prefetch_count + more, apply_global=False)
        old = {name: tag for name, tag in tasks._active_tags.items() if can_begin_anew(tasks._queues.get(name))}
        for name in old:
            del tasks._active_tags[name]
        tasks.consume()
        # Only now: RabbitMQ deletes a queue with auto_delete, and all that is in it, when it has no consumer.
        for tag in old.values():
            tasks.channel.basic_cancel(tag)

    def renew(more: int) -> None:
        nonlocal lent
        lent = more
        mark()
        consumer.call_soon(mark)  # Celery may be telling the broker its first count, and note that as the last one

    def mark() -> None:
        if lent is not None:
            qos.prev = None  # the loop's sign that something has changed

    qos.callback = tell_or_renew
    return renew
