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
        self.lent = 0

    def attach(self, qos: Any) -> None:
        """Lend from this `kombu.common.QoS`: a new one after every reconnect, with nothing lent."""
        if qos is not self._qos:
            self._qos = qos
            self._step = max(1, min(16, qos.value))
            self.lent = 0

    def cover(self, held: int) -> None:
        """Lend for this many held messages."""
        wanted = min(-(-held // self._step) * self._step, self._most)
        if wanted > self.lent or wanted <= self.lent - 2 * self._step or held == 0:
            self._change(wanted - self.lent)

    def _change(self, by: int) -> None:
        if not by or self._qos is None:
            return
        before = self._qos.value
        if by > 0:
            self._qos.increment_eventually(by)
        else:
            self._qos.decrement_eventually(-by)
        self.lent += self._qos.value - before  # the QoS has limits of its own, such as worker_eta_task_limit
