"""What a worker keeps of tasks that it has done with."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest
from celery.worker import state
from celery.worker.request import Request

from celery_global_rate.broker.held_request import Arrival, HeldRequest
from celery_global_rate.worker.pool import CeleryPool

from .probe import application


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_request_that_was_lost_with_its_process_is_freed_at_once(has_begun: bool) -> None:
    """Its callback for success is never called. Were it left there, a cycle, it would wait for the collector.

    Old cycles are looked for when objects by a quarter of all have come: by megabytes of lost requests.
    """
    consumer = SimpleNamespace(
        controller=SimpleNamespace(pool_cls=SimpleNamespace(uses_semaphore=True), pool_putlocks=False),
        pool=SimpleNamespace(is_green=False, num_processes=1, active=True),
        hub=None,
        on_task_request=lambda request: None,
    )
    pool = CeleryPool(consumer)
    request = lost_request(pool, has_begun)
    gc.disable()
    try:
        assert (pool.started, pool.on_deck) == ([], 0)
        assert request() is None
    finally:
        gc.enable()


def lost_request(pool: CeleryPool, has_begun: bool) -> weakref.ref[Request]:
    message = SimpleNamespace(
        headers={"id": "1", "task": "limited"}, body=b"", payload=((), {}, {}), delivery_info={}, properties={}
    )
    message.content_type = message.content_encoding = None
    request = Request(message, app=application("memory://"), on_ack=lambda *args: None, hostname="seams@lab")
    pool.start(HeldRequest(request, Arrival(None, 0, 0.0), 0.0), lambda error: None)
    if has_begun:
        request.on_accepted(1, 1.0)
    state.task_ready(request)
    return weakref.ref(request)


def test_tasks_that_run_while_the_connection_is_lost_are_not_forgotten() -> None:
    """Celery before 5.6 forgets them, and its pool drops their results: they would be active forever."""
    running, waiting, ended = (
        SimpleNamespace(_accepted=accepted, ready=lambda ready=ready: ready)
        for accepted, ready in [(True, False), (False, False), (True, True)]
    )
    cache = {1: running, 2: waiting, 3: ended}
    pool = SimpleNamespace(
        is_green=False, num_processes=1, active=True, flush=cache.clear, _pool=SimpleNamespace(_cache=cache)
    )
    controller = SimpleNamespace(pool_cls=SimpleNamespace(uses_semaphore=True), pool_putlocks=False)
    ours = CeleryPool(SimpleNamespace(controller=controller, pool=pool, hub=None))
    ours.begin()
    ours.begin()
    pool.flush()

    assert cache == {1: running}


def test_a_pool_that_cannot_forget_stays_one() -> None:
    """That of a worker without an event loop. Celery looks whether there is a `flush` before it calls it."""
    consumer = SimpleNamespace(
        controller=SimpleNamespace(pool_cls=SimpleNamespace(uses_semaphore=True), pool_putlocks=False),
        pool=SimpleNamespace(
            is_green=False, num_processes=1, active=True, flush=None, _pool=SimpleNamespace(_cache={})
        ),
        hub=None,
        on_task_request=lambda request: None,
    )
    CeleryPool(consumer).begin()

    assert consumer.pool.flush is None
