"""Pool processes that are replaced while the worker works, because they are old, or were lost."""

from __future__ import annotations

import gc
from typing import Any


def replaces_processes(controller: Any) -> bool:
    """Whether a worker forks after its start: a pool of processes does whenever one is lost."""
    return bool(controller.pool_cls.uses_semaphore)


def leave_to_fork() -> None:
    """Let the garbage collector look only at objects that are made from now on.

    Celery collects all garbage before each fork, in the event loop: that takes 30 ms for what an application imports,
    and several slots are missed meanwhile. What exists by now lives as long as the worker does. It is frozen, as the
    manual of `gc` advises for processes that fork; children also share its memory for longer.
    """
    if hasattr(gc, "freeze"):  # CPython
        gc.unfreeze()
        gc.collect()
        gc.freeze()
