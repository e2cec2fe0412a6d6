"""Pool processes that are replaced while the worker works, because they are old, or were lost."""

from __future__ import annotations

import gc
from typing import Any


def replaces_processes(controller: Any) -> bool:
    """Whether a worker forks after its start: a pool of processes does whenever one is lost."""
    return bool(controller.pool_cls.uses_semaphore)


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
