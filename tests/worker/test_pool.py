"""Celery's pool as the scheduler sees it, when Celery has ended it."""

from __future__ import annotations

from types import SimpleNamespace

from celery.concurrency.prefork import TaskPool
from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from celery_global_rate.worker.pool import CeleryPool


def test_a_pool_that_has_ended_has_no_process() -> None:
    """In a cold shutdown Celery terminates it, and its loop turns once more: the log had an error each time."""
    controller = SimpleNamespace(
        pool_cls=TaskPool, pool_putlocks=True, semaphore=LaxBoundedSemaphore(2), autoscaler=None
    )
    pool = TaskPool(2, app=SimpleNamespace(conf=SimpleNamespace()))
    pool.terminate()
    ours = CeleryPool(SimpleNamespace(controller=controller, pool=pool, hub=None))

    assert (ours.processes, ours.started) == (0, [])
    assert ours.free <= 0
