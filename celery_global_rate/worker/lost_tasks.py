"""Tasks whose end Celery would never notice, and would count as running forever."""

from __future__ import annotations

import sys
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.exceptions import WorkerLostError, WorkerShutdown, WorkerTerminate


def fail_lost_tasks(pool: Any) -> None:
    """Let a task that ends its thread or greenlet fail, as one that ends its process does.

    SystemExit, or an error in `on_failure` or `on_retry`, goes past the code that traces a task. In a process the pool
    reports it to Celery, and the task has failed. In a thread or a greenlet, and in a solo worker, Celery does not
    notice, and counts the task as running forever. Each would take a process from the tasks that come after it.

    Args:
        pool: Celery's, before it has been given any task.
    """
    apply_async = pool.apply_async

    def apply(
        target: Any, args: Any = None, kwargs: Any = None, callback: Any = None, error_callback: Any = None, **more: Any
    ) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return target(*args, **kwargs)
            except (WorkerShutdown, WorkerTerminate):
                raise
            except (Exception, SystemExit, KeyboardInterrupt) as exc:
                return _info(exc)

        def ended(outcome: Any) -> Any:
            return (error_callback if isinstance(outcome, ExceptionInfo) else callback)(outcome)

        if callback is None or error_callback is None:  # not a request of Celery's
            return apply_async(target, args, kwargs, callback=callback, error_callback=error_callback, **more)
        return apply_async(run, args, kwargs, callback=ended, error_callback=error_callback, **more)

    pool.apply_async = apply


def keep_running_tasks(pool: Any) -> None:
    """Let a pool of processes learn how tasks end that run while the connection to the broker is lost.

    Celery 5.3 to 5.5 then forgets all jobs of its pool. It hears no more of those that run: they are active forever.
    Each would take a process from the tasks that come after it. Since Celery 5.6 only those are forgotten that have not
    begun.

    Args:
        pool: Celery's, once it has started.
    """
    flush, processes = pool.flush, pool._pool
    if flush is None:  # a worker without an event loop: Celery asks before it calls
        return

    def flush_others() -> None:
        running = {job: result for job, result in processes._cache.items() if result._accepted}
        flush()
        processes._cache.update({job: result for job, result in running.items() if not result.ready()})

    pool.flush = flush_others


def _info(error: BaseException) -> ExceptionInfo:
    """An error as Celery's request takes it, without the lines of this file."""
    is_error = isinstance(error, Exception)
    reported = error if is_error else WorkerLostError(repr(error))
    traceback = sys.exc_info()[2]
    return ExceptionInfo((type(reported), reported, traceback.tb_next if traceback else None))
