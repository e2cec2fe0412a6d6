"""Celery's pool as the scheduler sees it, when Celery has ended it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery.concurrency import solo, thread
from celery.concurrency.base import BasePool
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


@pytest.mark.parametrize("pool_cls", [solo.TaskPool, thread.TaskPool], ids=["solo", "threads"])
def test_a_pool_without_processes_of_its_own_has_as_many_as_run_at_once(pool_cls: type[BasePool]) -> None:
    """Until it has ended."""
    pool = pool_cls(1, app=SimpleNamespace(conf=SimpleNamespace()))
    controller = SimpleNamespace(pool_cls=pool_cls, pool_putlocks=True, semaphore=None, autoscaler=None)
    ours = CeleryPool(SimpleNamespace(controller=controller, pool=pool, hub=None))
    pool.start()
    assert ours.processes == 1
    pool.stop()
    assert ours.processes == 0
