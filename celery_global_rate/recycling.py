"""Pool processes that are replaced while the worker works."""

from __future__ import annotations

import gc
from typing import Any


def replaces_processes(controller: Any) -> bool:
    """Whether a worker forks after its start: `--max-tasks-per-child`, `--max-memory-per-child` or `--autoscale`."""
    return bool(controller.max_tasks_per_child or controller.max_memory_per_child or controller.autoscaler)


def leave_to_fork() -> None:
    """Let the garbage collector look only at what comes from now on.

    Celery collects all garbage before each fork, in the event loop: 30 ms for what an application imports, and more
    slots than one are missed meanwhile. What is there by now lives as long as the worker does. It is frozen, as the
    manual of `gc` advises for processes that fork; the children share its memory for longer, too.
    """
    if hasattr(gc, "freeze"):  # CPython
        gc.unfreeze()
        gc.collect()
        gc.freeze()
