"""Releases to a pool of greenlets that is full: each waits for one of them. Threads stand for greenlets here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state
from celery.worker.request import Request

from celery_global_rate.broker.held_request import Arrival, HeldRequest
from celery_global_rate.worker.pool import CeleryPool

from .probe import application


class GreenPool:
    """A pool of two greenlets.

    Attributes:
        error: what a release ends in; None if all is well.
        freed: set when a greenlet becomes free.
        released: ids of the tasks that one has taken.
        called: what was to be run in the worker's loop.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.freed = threading.Event()
        self.released: list[str] = []
        self.called: list[tuple[Any, ...]] = []
        consumer = SimpleNamespace(
            controller=SimpleNamespace(pool_cls=SimpleNamespace(uses_semaphore=False), pool_putlocks=True),
            pool=SimpleNamespace(is_green=True, active=True, _pool=SimpleNamespace(size=2), apply_async=None),
            hub=None,
            on_task_request=self.release,
        )
        self.ours = CeleryPool(consumer)
        self.ours.listen(lambda run_time_s: None, lambda: None, lambda *call: self.called.append(call))

    def release(self, request: Any) -> None:
        if len(self.released) == 2:
            assert self.freed.wait(10)
        if self.error:
            raise self.error
        self.released.append(request.id)

    def start(self, task: str, failed: Any = None) -> HeldRequest:
        message = SimpleNamespace(
            headers={"id": task, "task": "limited"}, body=b"", payload=((), {}, {}), delivery_info={}, properties={}
        )
        message.content_type = message.content_encoding = None
        request = Request(message, app=application("memory://"), on_ack=lambda *args: None, hostname="green@lab")
        held = HeldRequest(request, Arrival(None, 0, 0.0), 0.0)
        self.ours.start(held, failed)
        return held


@pytest.fixture
def pool() -> Iterator[GreenPool]:
    green = GreenPool()
    yield green
    green.freed.set()
    green.ours.wait_for_starts()
    state.reset_state()


def test_a_release_that_waits_for_a_greenlet_does_not_keep_the_loop_waiting(pool: GreenPool) -> None:
    """It waits on deck; before the worker ends, it has gone."""
    for task in ("a", "b", "c"):
        pool.start(task)
    before = list(pool.released), pool.ours.free
    pool.freed.set()
    pool.ours.wait_for_starts()

    assert before == (["a", "b"], -1)
    assert pool.released == ["a", "b", "c"]
    assert pool.called == []


def test_a_release_that_fails_after_its_wait_is_reported_in_the_loop(pool: GreenPool) -> None:
    """The task is held again, and waits for no greenlet."""
    held = [pool.start(task, "failed") for task in ("a", "b", "c")]
    pool.error = RuntimeError("on purpose")
    pool.freed.set()
    pool.ours.wait_for_starts()

    assert pool.called == [("failed", pool.error)]
    assert held[2].request not in state.reserved_requests
    assert pool.ours.free == 0


def test_an_error_without_a_wait_is_raised_at_once(pool: GreenPool) -> None:
    pool.error = RuntimeError("on purpose")
    with pytest.raises(RuntimeError, match="on purpose"):
        pool.start("a")

    assert pool.called == []
