"""Requests that fail before they start, as Celery lets one fail whose ETA it cannot read.

`tests/test_seams.py` has one test for each attribute of Celery's that is used here.
"""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionInfo
from celery import signals
from kombu.utils.encoding import safe_repr


def fail(request: Any, error: Exception) -> None:
    """Store the failure of a request, tell those who listen, and reject its message.

    A dead-letter exchange gets the message, if its queue has one.

    Args:
        request: Celery's, which is held and not acknowledged.
        error: what it fails with.
    """
    task = request.task
    try:
        raise error
    except Exception:
        info = ExceptionInfo()
    # It also fails what waits for the task: a chord, the rest of its chain, its errbacks.
    task.backend.mark_as_failure(request.id, error, request=request._context, store_result=request.store_errors)
    signals.task_failure.send(
        sender=task,
        task_id=request.id,
        exception=error,
        args=request.args,
        kwargs=request.kwargs,
        traceback=error.__traceback__,
        einfo=info,
    )
    request.send_event("task-failed", exception=safe_repr(error), traceback=info.traceback)
    request.reject(requeue=False)
