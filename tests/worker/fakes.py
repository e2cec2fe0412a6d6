"""The bootstep in a worker that is made up: Celery's consumer and pool are not real; the loop and the Redis are."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

from celery import Celery, bootsteps
from celery.worker import state
from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from celery_global_rate.worker.step import GlobalRateLimit

from ..broker.fakes import Channel, Message, Request, consumer_on
from ..storage.wire import Loop

PROCESSES = 2


def run() -> None:
    """What the tasks would do."""


class Worker:
    """One whose pool has two processes, which run nothing and end when they are told to.

    Attributes:
        log: what became of messages, consumer and pool, in order.
        released: ids, in order.
        reconfigured: how often Celery was asked to build its buckets again.
    """

    def __init__(self, url: str, rate: str | None = "1/h", driver: str = "amqp", channel: Any = None) -> None:
        self.app = Celery("proj", set_as_current=False, broker="memory://")
        self.app.conf.global_rate_url = url
        self.task = self.app.task(name="proj.task", rate_limit=rate, shared=False)(run)
        self.free_task = self.app.task(name="proj.free", shared=False)(run)
        self.app.finalize()
        self.loop, self.log = Loop(), list[str]()
        self.released: list[str] = []
        self._ids = itertools.count()
        self.consumer = consumer = consumer_on(driver, channel or Channel(), log=self.log)
        consumer.app, consumer.hub, consumer.hostname = self.app, self.loop.hub, "w@lab"
        consumer.task_buckets, consumer.qos, consumer.steps = {}, None, []
        consumer.blueprint = SimpleNamespace(state=bootsteps.RUN)
        consumer.disable_rate_limits = False
        consumer.pool = SimpleNamespace(is_green=False, num_processes=PROCESSES, active=True)
        consumer.controller = SimpleNamespace(
            pool_cls=SimpleNamespace(uses_semaphore=True),
            pool_putlocks=True,
            semaphore=LaxBoundedSemaphore(PROCESSES),
            autoscaler=None,
            wait_for_soft_shutdown=lambda: self.log.append("wait"),
        )
        consumer.reset_rate_limits = lambda: consumer.task_buckets.update(
            {name: consumer.bucket_for_task(task) for name, task in self.app.tasks.items()}
        )
        consumer.on_task_request = lambda request: self.released.append(request.id)
        self.step = GlobalRateLimit(consumer)
        self.step.create(consumer)
        self.engine = self.step.engine

    def __enter__(self) -> Worker:
        """Begin as a worker does that is connected."""
        self.step.start(self.consumer)
        self.step.register_with_event_loop(self.consumer, self.loop.hub)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.engine.detach(self.loop.hub)
        self.step.shutdown(self.consumer)
        self.loop.close()
        state.reset_state()

    def receive(self, count: int = 1, task: Any = None) -> list[Request]:
        """Let Celery put this many requests of a task into its bucket."""
        requests = [Request(Message(f"m{next(self._ids)}", log=self.log)) for _ in range(count)]
        for request in requests:
            request.task = task or self.task  # type: ignore[attr-defined]
            self.consumer.bucket_for_task(task or self.task).add((request, 1))
        return requests

    def control(self, command: Any, *args: Any) -> Any:
        """What the worker answers to a command of remote control."""
        return command(SimpleNamespace(app=self.app, consumer=self.consumer), *args)
