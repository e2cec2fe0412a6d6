"""Where the bootstep meets Celery's consumer: a consumer that is made up, on a real loop and a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.override import Kept, parse_rates, set_limits
from celery_global_rate.settings import Settings
from celery_global_rate.storage.blocking_store import BlockingStore
from celery_global_rate.worker.task_bucket import TaskBucket

from ..broker.fakes import RedisChannel
from .fakes import Worker


def test_a_task_is_released_when_it_has_a_slot_and_the_next_is_held(worker: Worker) -> None:
    first, *_ = worker.receive(3)
    worker.loop.run_until(lambda: worker.released)

    assert worker.released == [first.id]
    assert worker.step.info(worker.consumer)["global_rate"]["held"] == 2


def test_all_buckets_of_celery_are_ours_and_a_task_without_a_limit_has_none(worker: Worker) -> None:
    assert isinstance(worker.consumer.task_buckets["proj.task"], TaskBucket)
    assert worker.consumer.task_buckets["proj.free"] is None


def test_the_bucket_of_a_task_stays_the_same_object(worker: Worker) -> None:
    """Strategies keep it, and timers of tasks with an ETA."""
    bucket = worker.consumer.bucket_for_task(worker.task)
    worker.task.rate_limit = "7/s"

    assert worker.consumer.bucket_for_task(worker.task) is bucket
    assert worker.engine.lanes.lane("proj.task", None, str).limit == Limit.parse("7/s")


def test_what_is_held_is_requeued_as_soon_as_the_worker_begins_to_end(worker: Worker) -> None:
    """In its order, after its consumer was cancelled, and once: Celery stops the step again when its tasks are done."""
    worker.receive(3)
    worker.loop.run_until(lambda: worker.released)
    worker.step.close(worker.consumer)
    worker.step.stop(worker.consumer)

    assert worker.log == ["cancel", "requeue m1", "requeue m2"]
    assert worker.engine.scheduler.held == 0
    worker.step.register_with_event_loop(worker.consumer, worker.loop.hub)


def test_a_worker_without_an_event_loop_acknowledges_what_has_begun_when_it_begins_to_end(worker: Worker) -> None:
    """Celery leaves that to the next turn of its own loop, and before 5.5 there is none: such tasks ran twice."""
    worker.receive(3)
    worker.loop.run_until(lambda: worker.released)
    thread: Any = SimpleNamespace(stop=lambda detach: detach(worker.loop.hub))
    worker.step._thread = thread
    worker.consumer.perform_pending_operations = lambda: worker.log.append("acknowledge")
    worker.step.close(worker.consumer)

    assert worker.log == ["cancel", "requeue m1", "requeue m2", "acknowledge"]


def test_what_is_held_when_the_connection_is_lost_is_left_to_the_broker(worker: Worker) -> None:
    worker.receive(3)
    worker.loop.run_until(lambda: worker.released)
    worker.step.stop(worker.consumer)

    assert worker.log == []
    assert worker.engine.scheduler.held == 0
    worker.step.register_with_event_loop(worker.consumer, worker.loop.hub)
    assert worker.engine.dropped == []


@pytest.mark.parametrize(
    ("timeout_s", "expected"), [(5, ["cancel", "requeue m1", "requeue m2", "wait"]), (0, ["wait"])]
)
def test_a_soft_shutdown_requeues_what_is_held_before_it_waits(
    worker: Worker, timeout_s: float, expected: list[str]
) -> None:
    worker.receive(3)
    worker.loop.run_until(lambda: worker.released)
    worker.app.conf.worker_soft_shutdown_timeout = timeout_s
    worker.consumer.controller.wait_for_soft_shutdown()

    assert worker.log == expected


def test_a_soft_shutdown_in_another_greenlet_leaves_the_connection_to_the_one_that_takes_messages(
    worker: Worker,
) -> None:
    """It waits for messages at that moment, and gevent lets no other one read from its socket."""
    worker.receive(3)
    worker.loop.run_until(lambda: worker.released)
    soon: list[Callable[[], None]] = []
    worker.consumer.call_soon = lambda action, *args: soon.append(partial(action, *args))
    worker.app.conf.worker_soft_shutdown_timeout = 5
    handler = threading.Thread(target=worker.consumer.controller.wait_for_soft_shutdown)
    handler.start()
    handler.join()
    waits = list(worker.log)
    for action in soon:
        action()

    assert waits == ["wait"]
    assert worker.log == ["wait", "cancel", "requeue m1", "requeue m2"]


def test_a_soft_shutdown_requeues_nothing_twice(worker: Worker) -> None:
    worker.receive(3)
    worker.loop.run_until(lambda: worker.released)
    worker.app.conf.worker_soft_shutdown_timeout = 5
    worker.consumer.controller.wait_for_soft_shutdown()
    worker.consumer.controller.wait_for_soft_shutdown()
    worker.step.close(worker.consumer)
    worker.step.stop(worker.consumer)

    assert worker.log == ["cancel", "requeue m1", "requeue m2", "wait", "wait"]


def test_what_was_held_before_a_redis_broker_was_lost_is_requeued_by_the_new_connection(url: str) -> None:
    channel = RedisChannel("m0", "m1", "m2")
    channel.basic_consume = lambda *args, **kwargs: None  # type: ignore[attr-defined]
    with Worker(url, driver="redis", channel=channel) as worker:
        worker.receive(3)
        worker.loop.run_until(lambda: worker.released)
        worker.consumer.connection.collect()
        worker.step.stop(worker.consumer)
        worker.step.start(worker.consumer)
        worker.step.register_with_event_loop(worker.consumer, worker.loop.hub)

    assert channel.restored == ["m2", "m1"]


def test_an_override_from_before_the_start_is_in_force_and_shown_until_the_worker_ends(url: str) -> None:
    """Monitors read the attribute; another worker of this process would declare it."""
    with Worker(url) as earlier, BlockingStore(Settings.from_app(earlier.app)) as store:
        store.change("proj.task", set_limits(*parse_rates("5/s", [Kept()]), ()), "me", "test", "")
    with Worker(url) as worker:
        lane, shown = worker.engine.lanes.lane("proj.task", None, str), worker.task.rate_limit
        declared = worker.step.declared("proj.task")

    assert (lane.limit, shown) == (Limit.parse("5/s"), "5/s")
    assert (declared, worker.task.rate_limit) == ((Limit.parse("1/h"),), "1/h")


def test_where_rate_limits_are_disabled_celery_stays_as_it_is(worker: Worker) -> None:
    worker.consumer.disable_rate_limits = True

    assert not worker.step.include_if(worker.consumer)
