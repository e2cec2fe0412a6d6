"""Prefetch slots for held messages: what is held does not keep the worker from taking other tasks."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from .rabbitmq import can_restart_consumer

logger = logging.getLogger(__name__)

#: A larger prefetch count cannot be sent.
LARGEST = 65535

#: Restarts the consumer soon, with this many prefetch slots beside those that Celery asks for.
Renew = Callable[[int], None]


class Credit:
    """Raises the consumer's prefetch count while messages are held, beside what Celery itself asks for.

    The broker is sent the sum. Celery's own counter does not include it: after a lost connection Celery sets that
    counter, and what we had added would be gone, or what we take back would never have been there.

    If the broker counts per channel, the count changes in steps, because on RabbitMQ each change is a round trip: up as
    soon as more is held than was lent, down only when two steps too many are lent. If it counts per consumer, and the
    count stays as it was when the consumer began, the consumer is restarted: what the old one has brought does not
    count for the new one. This takes three round trips, so it is done once a quarter of Celery's own prefetch count is
    used up, then for as many as have come, and the last time when nothing is held any more.

    Args:
        most: no more than this is lent if the broker counts per consumer.
        room: returns how much may be lent if the count is per channel.
        renewal: returns for a QoS how its consumer is restarted, or None if its prefetch count follows each change.
    """

    def __init__(self, most: int, room: Callable[[], int], renewal: Callable[[Any], Renew | None]) -> None:
        self._most = most
        self._shared_room = room
        self._renewal = renewal
        self._qos: Any = None
        self._renew: Renew | None = None
        self._step = 1
        self._own = self._room = 0
        self._received = 0
        self._has_warned = False
        self.lent = self._sent = 0

    def received(self) -> None:
        """One more is held."""
        self._received += 1

    def cover(self, held: int, qos: Any) -> None:
        """Lend for this many held messages.

        Args:
            held: messages.
            qos: the consumer's `kombu.common.QoS`: a new one, with nothing lent, after every reconnect; or None.
        """
        if qos is not self._qos:
            self._attach(qos)
        room = self._shared_room() if self._room and self._renew is None else self._room
        if held >= room > 0 and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "global-rate: this worker has reached global_rate_max_held (%d held tasks): the tasks behind "
                "them in its queues wait. Give limited tasks their own queue, or raise the setting",
                self._most,
            )
        if self._renew is None:
            self._lend(self._wanted(held, room))
        elif self._room and (more := self._wanted_by_new(held)) is not None:
            self._lend(more)
            self._received = 0
            self._renew(more)

    def _attach(self, qos: Any) -> None:
        self._qos, self.lent, self._sent, self._room, self._renew = qos, 0, 0, 0, None
        if qos is not None and qos.value:  # 0 means no limit
            self._own = qos.value
            self._step = min(16, qos.value)
            self._room = self._most
            self._renew = self._renewal(qos)
            if self._renew is None:
                qos.callback = partial(self._send, qos, qos.callback)

    def _wanted(self, held: int, room: int) -> int:
        """What to lend if the prefetch count follows each change."""
        if 0 < held <= self.lent < held + 2 * self._step:
            return self.lent
        return min(-(-held // self._step) * self._step, room)

    def _wanted_by_new(self, held: int) -> int | None:
        """What to lend to a new consumer, or None if the present one will do."""
        if not held:
            return 0 if self.lent else None
        brought = min(held, self._received)  # by the present consumer, at most
        room = self._room - held
        if 4 * (brought - self.lent) < self._own or room < min(self._step, self._room):
            return None
        return min(room, max(self._step, 2 * brought))

    def _lend(self, wanted: int) -> None:
        # Sent again until it is known to be: a change while Celery sends the broker its first count goes unnoticed.
        if wanted != self.lent or self._sent != self.lent:
            with self._qos._mutex:
                self.lent = wanted
                self._qos.prev = None  # the loop's sign that something has changed

    def _send(self, qos: Any, send: Callable[..., None], prefetch_count: int) -> None:
        """Send the broker the sum of what Celery asks for and what is lent. Celery may set its own count any time."""
        if not prefetch_count or qos is not self._qos:
            send(prefetch_count=prefetch_count)
            return
        sent = -1
        while sent != self.lent:  # RabbitMQ may deliver more messages before it confirms the change
            sent = self.lent
            send(prefetch_count=min(prefetch_count + sent, LARGEST))
        self._sent = sent


def renewal(consumer: Any, qos: Any) -> Renew | None:
    """How the worker's consumer is restarted with another prefetch count, if the count is fixed when it starts.

    RabbitMQ counts for each consumer if one of the queues is a quorum queue, and kombu 5.7 asks it to on every
    RabbitMQ from 4.0 on. A change of the prefetch count then applies only to new consumers.

    Args:
        consumer: the worker's.
        qos: its `kombu.common.QoS` of this moment, which Celery's loop asks to send the broker what has changed.

    Returns:
        A function that takes how many prefetch slots the new consumer has beside those that Celery asks for; or None if
        the prefetch count follows each change.
    """
    if consumer.connection is None or consumer.connection.transport.driver_type != "amqp":  # None: it is lost
        return None
    # Celery 5.7 has an attribute for it, too; the callback knows it in all versions.
    counts_for_all = inspect.getclosurevars(qos.callback).nonlocals["qos_global"]
    return None if counts_for_all else ConsumerRestart(consumer, qos).ask


class ConsumerRestart:
    """Restarts the worker's consumer with another prefetch count, the next time Celery's loop turns.

    The messages that the old consumer has brought stay with the worker and do not count for the new one, which begins
    before the old one ends.

    Args:
        consumer: the worker's.
        qos: as for `renewal`.
    """

    def __init__(self, consumer: Any, qos: Any) -> None:
        self._consumer = consumer
        self._qos = qos
        self._send = qos.callback
        #: Prefetch slots of the next consumer beside those that Celery asks for; None if none is asked for.
        self._more: int | None = None
        qos.callback = self._send_or_restart

    def ask(self, more: int) -> None:
        """Have it done, with this many prefetch slots beside those that Celery asks for."""
        self._more = more
        self._mark()
        # Celery may be sending the broker its first count, and note that as the last one.
        self._consumer.call_soon(self._mark)

    def _mark(self) -> None:
        if self._more is not None:
            self._qos.prev = None  # the loop's sign that something has changed

    def _send_or_restart(self, prefetch_count: int) -> None:
        if self._more is None:
            self._send(prefetch_count=prefetch_count)
            return
        more, self._more = self._more, None
        tasks = self._consumer.task_consumer
        tasks.qos(prefetch_count=self._consumer.initial_prefetch_count + more, apply_global=False)
        old = {name: tag for name, tag in tasks._active_tags.items() if can_restart_consumer(tasks._queues.get(name))}
        for name in old:
            del tasks._active_tags[name]
        tasks.consume()
        # Only now: RabbitMQ deletes a queue with auto_delete, and all that is in it, when it has no consumer.
        for tag in old.values():
            tasks.channel.basic_cancel(tag)
