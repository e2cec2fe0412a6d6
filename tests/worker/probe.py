"""A worker that runs in this process, with a step that sits where ours sits and writes down what it sees."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from celery import Celery, _state, bootsteps
from celery.exceptions import WorkerShutdown
from celery.worker import state

import celery_global_rate

#: What an option of the worker says.
OPTION = "from the probe"
#: How long its task runs, in seconds.
RUN_TIME_S = 0.03
#: The worker is ended after this time, in seconds, if a seam is gone that would have ended it.
PATIENCE_S = 10


def seam(holds: object, what: str, ours: str, theirs: str) -> None:
    """Assert that theirs still behaves as ours needs it, and that ours, files and names in them, is still there."""
    files = re.findall(r"[\w/]+\.py", ours)
    names = re.findall(r"\w+", re.sub(r"[\w/]+\.py", "", ours))
    text = "".join((Path(celery_global_rate.__file__).parent / file).read_text() for file in files)
    assert all(name in text for name in names), f"{ours} has moved"
    assert holds, f"{what}: open celery_global_rate/{ours} and {theirs}"


class Lane:
    """A bucket that starts what it is given, and writes down what it sees."""

    contents: tuple[Any, ...] = ()

    def __init__(self, step: Step, task: Any) -> None:
        self.step, self.task, self.seen = step, task, step.app.seen

    def __bool__(self) -> bool:
        self.seen.asked_if_bucket = True
        return True

    def pop(self) -> Any:
        raise IndexError

    def clear_pending(self) -> None:
        self.seen.events.append("clear_pending")

    def add(self, item: tuple[Any, int]) -> None:
        self.seen.items.append(item)
        request = item[0]
        if len(self.seen.items) == 2:
            state.revoked.add(request.id)
            self.seen.revoked = request.revoked(), request.revoked(), request.acknowledged
            self.step.ending = True
            return
        theirs = request.on_success

        def on_success(outcome: Any, **kwargs: Any) -> None:
            del request.on_success
            self.seen.running = request in state.active_requests, request in state.reserved_requests, request.time_start
            theirs(outcome, **kwargs)
            self.seen.outcome, self.seen.left = outcome, request in state.reserved_requests | state.active_requests

        request.on_success = on_success
        state.task_reserved(request)
        self.seen.reserved = request in state.reserved_requests
        self.step.consumer.on_task_request(request)


class Step(bootsteps.StartStopStep):
    """Sits where ours sits."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, probe: str | None = None, **kwargs: Any) -> None:
        self.app, self.consumer, self.ending = consumer.app, consumer, False
        self.app.seen.option = probe
        super().__init__(consumer, **kwargs)

    def include_if(self, consumer: Any) -> bool:
        self.app.seen.known_early = consumer.disable_rate_limits is False and consumer.hub is not None
        return True

    def create(self, consumer: Any) -> None:
        self.app.seen.stock_buckets = consumer.task_buckets, dict(consumer.task_buckets)
        lanes = {name: Lane(self, task) for name, task in self.app.tasks.items() if task.rate_limit}
        consumer.bucket_for_task = lambda task: lanes.get(task.name)
        consumer.reset_rate_limits()
        consumer.hub.on_tick.add(self.on_tick)
        apply_async = consumer.pool.apply_async

        def noted(*args: Any, **kwargs: Any) -> Any:
            self.app.seen.applied = kwargs
            return apply_async(*args, **kwargs)

        consumer.pool.apply_async = noted

    def start(self, consumer: Any) -> None:
        self.app.seen.events.append("start")

    def stop(self, consumer: Any) -> None:
        self.app.seen.events.append("stop")

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        self.app.seen.events.append("register")
        self.app.seen.qos.append(consumer.qos)
        hub.timer.call_after(PATIENCE_S, self.give_up)

    def info(self, consumer: Any) -> dict[str, Any]:
        return {"probe": {"held": 3}}

    def give_up(self) -> None:
        raise WorkerShutdown(1)

    def on_tick(self) -> None:
        if self.ending and len(self.app.seen.qos) == 1:
            raise ConnectionResetError("the broker is gone")
        if self.ending:
            raise WorkerShutdown(0)


def application(broker: str) -> Celery:
    app = Celery("seams", broker=broker, set_as_current=False)
    app.conf.update(task_ignore_result=True, worker_cancel_long_running_tasks_on_connection_loss=True)
    app.conf.worker_enable_prefetch_count_reduction = False

    @app.task(name="limited", rate_limit="10/s", shared=False)
    def limited() -> None:
        time.sleep(RUN_TIME_S)

    app.seen = SimpleNamespace(events=[], items=[], qos=[], asked_if_bucket=False, reserved=False, left=True)
    app.seen.applied = {}
    app.seen.running, app.seen.outcome, app.seen.revoked = (False, False, 0.0), (None, None, 0.0), None
    app.steps["consumer"].add(Step)
    return app


def build(app: Celery) -> Any:
    """A worker that is not started."""
    options = {"without_mingle": True, "without_gossip": True, "probe": OPTION}
    worker = app.WorkController(pool_cls="solo", concurrency=1, hostname="seams@lab", **options)
    _state._set_task_join_will_block(False)  # or no later test of this process could wait for a result
    return worker
