"""What Celery takes for the bucket of a task."""

from __future__ import annotations

from typing import Any

from ..broker.queues import Queues
from ..limits.limit import Limit
from ..scheduling.lane import Lane
from .engine import Engine


class TaskBucket:
    """The bucket Celery sees: one object per task for as long as the worker lives.

    Strategies and timers of ETA tasks keep a reference, so a new limit changes this object and never replaces it.

    Attributes:
        lane: where its requests are held.
        declared: the limit that the task declares.
    """

    #: Celery's own drain looks in here and finds nothing.
    contents: tuple[Any, ...] = ()

    def __init__(self, queues: Queues, engine: Engine, lane: Lane) -> None:
        self._queues = queues
        self._engine = engine
        self.lane = lane
        self.declared: Limit | None = None

    def __bool__(self) -> bool:
        return True  # Celery tests `if bucket:`

    def add(self, item: tuple[Any, int]) -> None:
        """Take a request that was received, or whose ETA has come."""
        self._engine.hold(self.lane, self._queues.hold(item[0]))

    def pop(self) -> Any:
        """Nothing, ever."""
        raise IndexError("requests are released by global-rate")

    def clear_pending(self) -> None:
        """The broker connection is gone, and with it the right to acknowledge what is held."""
        self._engine.clear()
