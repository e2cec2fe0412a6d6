"""What Celery takes for the bucket of a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..broker.queues import Queues
from .engine import Engine


class TaskBucket:
    """The bucket Celery sees: one object per task for as long as the worker lives.

    Strategies and timers of ETA tasks keep a reference, so a new limit changes this object and never replaces it.

    Args:
        queues: know where a message came from.
        engine: holds what has to wait.
        pass_on: takes a request that no limit is for.
    """

    #: Celery's own drain looks in here and finds nothing.
    contents: tuple[Any, ...] = ()

    def __init__(self, queues: Queues, engine: Engine, pass_on: Callable[[Any], None]) -> None:
        self._queues = queues
        self._engine = engine
        self._pass_on = pass_on

    def __bool__(self) -> bool:
        return True  # Celery tests `if bucket:`

    def add(self, item: tuple[Any, int]) -> None:
        """Take a request that was received, or whose ETA has come."""
        request = self._queues.hold(item[0])
        if self._engine.lanes.names(request.task_name, request.queue_name):
            self._engine.hold(request)
        else:
            self._pass_on(request.request)

    def pop(self) -> Any:
        """Nothing, ever."""
        raise IndexError("requests are released by global-rate")

    def clear_pending(self) -> None:
        """The broker connection is gone, and with it the right to acknowledge what is held."""
        self._engine.clear()
