"""Prefetch slots for held messages, so that what is held does not keep the worker from taking other tasks."""

from __future__ import annotations

from typing import Any


class Credit:
    """Raises the consumer's prefetch count while messages are held, and takes back exactly what was granted.

    In steps, because on RabbitMQ each change is a round trip: up as soon as more is held than was lent, down only
    when two steps too many are out.

    Args:
        most: no more is lent than this.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._qos: Any = None
        self._step = 1
        self._room = 0
        self.lent = 0

    def cover(self, held: int, qos: Any) -> None:
        """Lend for this many held messages.

        Args:
            held: messages.
            qos: the consumer's `kombu.common.QoS`: a new one, with nothing lent, after every reconnect; or None.
        """
        if qos is not self._qos:
            self._attach(qos)
        if 0 < held <= self.lent < held + 2 * self._step:
            return
        wanted = min(-(-held // self._step) * self._step, self._room)
        if wanted > self.lent:
            self._qos.increment_eventually(wanted - self.lent)
        elif wanted < self.lent:
            self._qos.decrement_eventually(self.lent - wanted)
        self.lent = wanted

    def _attach(self, qos: Any) -> None:
        self._qos, self.lent, self._room = qos, 0, 0
        # A count of 0 has no end. With `worker_eta_task_limit` Celery gives back more for its ETA tasks than it was
        # granted, wherever somebody else has used the room up to that limit: so nobody does.
        if qos is not None and qos.value and not getattr(qos, "max_prefetch", None):
            self._step = min(16, qos.value)
            self._room = self._most
