"""Where this extension meets Celery's consumer; `pool` is where it meets Celery's pool.

The seam is one method of the consumer, `bucket_for_task`, replaced on the instance. Celery asks it for the bucket of
every task, puts what it receives into that bucket, and drains it by its own timer; ours never yields anything
to that timer and releases requests itself. `tests/test_seams.py` has one test for each attribute used here.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import bootsteps

from ..broker.ack_deadline import AckDeadline
from ..broker.held_request import HeldRequest
from ..broker.polling import look_up_often
from ..broker.prefetch import renewal
from ..broker.queues import Queues
from ..broker.redis import LostConnections, acknowledge_in_turn, keep_client
from ..broker.shutdown import requeue_held
from ..declared_limits import Declared, has_own_strategy, kept_of
from ..limits.limit import Limits
from ..limits.override import Kept
from ..named_buckets import read_named_buckets
from ..settings import Settings
from ..task_routes import has_functions
from . import control  # noqa: F401  (commands)
from .engine import Engine
from .gc_freeze import leave_to_fork, replaces_processes
from .loop import HubThread
from .pidbox import Broadcast
from .pool import CeleryPool
from .reports import Reports
from .status import announce, announce_named, announce_routes
from .task_bucket import TaskBucket

logger = logging.getLogger(__name__)


class GlobalRateLimit(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """A consumer bootstep that makes `rate_limit` hold for the whole cluster.

    ``app.steps['consumer'].add(GlobalRateLimit)`` enables it. In any window of length w at most
    ``b + (w + D + R) / T`` tasks of a limit are released, whatever workers come, go, stall or die, while Redis
    answers: burst b, emission interval T, grace D (25 ms, or T/10 up to 1 s if that is more), and R, about one
    round trip to Redis. `global_rate_on_outage` decides what they do while Redis does not answer.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, global_rate_url: str | None = None, **kwargs: Any) -> None:
        self._url = global_rate_url
        super().__init__(consumer, **kwargs)

    def include_if(self, consumer: Any) -> bool:
        """Leave Celery as it is if rate limits are disabled."""
        return not consumer.disable_rate_limits

    def create(self, consumer: Any) -> None:
        """Take the seam. Buckets that Celery has built already are replaced by ours."""
        self._app = consumer.app
        self._declared = Declared(consumer.app)
        #: By their names.
        self.named = read_named_buckets(consumer.app.conf)
        self.hostname: str = consumer.hostname
        self._celery_buckets = consumer.task_buckets
        #: By the names of their tasks: of all that have a limit, had one, may have one, or have an override.
        self._buckets: dict[str, TaskBucket] = {}
        self._thread = None if consumer.hub else HubThread("global-rate")
        self._queues = Queues(consumer)
        self.engine = self._build_engine(consumer)
        self._lost_connections = LostConnections(lambda: self.engine.scheduler.requests)
        self.broadcast = Broadcast()
        self.engine.read_overrides()
        consumer.global_rate = self
        consumer.bucket_for_task = self._bucket_for_task
        consumer.reset_rate_limits()
        self._await_soft_shutdown(consumer)
        self._announce()

    def _build_engine(self, consumer: Any) -> Engine:
        settings = Settings.from_app(consumer.app, self._url)
        self._reports = Reports(settings, self.named)
        self._reports.begin()
        self._ack_deadline = AckDeadline(consumer, settings.consumer_timeout_s)
        self._pool = CeleryPool(consumer)
        return Engine(
            settings,
            f"{consumer.hostname}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
            self._pool,
            lambda: consumer.qos,
            self._queues,
            partial(renewal, consumer),
            self._ack_deadline,
            () if self._thread else consumer.connection_errors + consumer.channel_errors,
            self.named,
            lambda: self._app.tasks,
            self._on_override,
            self._reports.mark,
        )

    def _await_soft_shutdown(self, consumer: Any) -> None:
        self._is_ending = False
        controller = consumer.controller
        if wait := getattr(controller, "wait_for_soft_shutdown", None):  # since Celery 5.5
            controller.wait_for_soft_shutdown = partial(self._begin_soft_shutdown, consumer, wait)

    def _announce(self) -> None:
        now_us = self.engine.limiter.clock.now_us(time.monotonic())
        declared = self.engine.lanes.declared
        unlimited = {name for name in declared if self.is_unlimited(name)}
        announce(declared, self.named, unlimited, self.engine.overrides, now_us)
        announce_named(self.named.values(), self._app.tasks)
        announce_routes(has_functions(self._app.conf))

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """Move into the event loop: at start, and again after each reconnect to the broker."""
        self.engine.attach(hub)

    def start(self, consumer: Any) -> None:
        """The worker is connected to its broker. Without an event loop, start one."""
        self._consumer_ident = threading.get_ident()
        self._pool.begin()
        self._queues.begin()
        self._lost_connections.requeue(consumer.connection)
        self._lost_connections.watch(consumer.connection)
        self._ack_deadline.begin()
        keep_client(consumer.connection.default_channel)
        for step in consumer.steps:
            if (box := getattr(step, "box", None)) is not None:
                self.broadcast.listen(box.node)
        if replaces_processes(consumer.controller):
            leave_to_fork()
        if self._thread:
            self._thread.start(self.engine.attach)
            look_up_often(consumer.connection, lambda: self.engine.last_held)
            acknowledge_in_turn(consumer.connection.default_channel)

    def close(self, consumer: Any) -> None:
        """The worker ends: requeue what is held before any step stops. The one that takes commands needs up to a second
        with greenlets, and before the channel is closed the worker waits for its tasks.
        """
        self._begin_to_end(consumer)
        if self._thread:  # Celery before 5.5 would not acknowledge what has begun since its last turn
            consumer.perform_pending_operations()

    def stop(self, consumer: Any) -> None:
        """Give slots back and let go of the loop: at shutdown, and when the broker connection is lost."""
        if not self._is_ending:
            self._let_go(consumer)

    def _let_go(self, consumer: Any) -> None:
        self._queues.forget()
        if self._thread:
            self._thread.stop(self.engine.detach)
            self._pool.wait_for_starts()
        elif consumer.hub:
            self.engine.detach(consumer.hub)

    def _begin_soft_shutdown(self, consumer: Any, wait: Callable[[], None]) -> None:
        """Requeue what is held before Celery waits for its tasks in the handler of a signal, where no loop turns.

        With greenlets, the signal may interrupt another one than that which waits for messages and alone may use the
        connection: that one goes on meanwhile. If it interrupts gevent itself, Celery cannot wait, and ends the worker.
        """
        if self._app.conf.worker_soft_shutdown_timeout > 0:
            if threading.get_ident() == self._consumer_ident:
                self._begin_to_end(consumer)
            else:
                consumer.call_soon(self._begin_to_end, consumer)
        wait()

    def _begin_to_end(self, consumer: Any) -> None:
        def let_go() -> list[HeldRequest]:
            if not self._is_ending:
                self._is_ending = True
                self._let_go(consumer)
            dropped, self.engine.dropped = self.engine.dropped, []
            return dropped

        is_holding = bool(self.engine.scheduler.held or self.engine.dropped)
        try:
            requeue_held(consumer, is_holding, let_go)
        except Exception:  # Celery would leave out all steps that have not stopped yet
            logger.exception("global-rate: held messages could not be requeued; they return with the connection")

    def shutdown(self, consumer: Any) -> None:
        """The worker ends."""
        self.engine.close()
        self._reports.end()
        self._declared.restore_all()

    def info(self, consumer: Any) -> dict[str, Any]:
        """What `celery inspect stats` shows."""
        return {"global_rate": self.engine.info()}

    def declared(self, name: str) -> Limits:
        """What a task or a named bucket declares."""
        return self.named[name].limits if name in self.named else self._declared.limits(self._app.tasks[name])

    def kept(self, name: str) -> list[Kept]:
        """What stays of each limit that a task or a named bucket has or may be given when a rate is set."""
        return kept_of(self._app, self.named, name)

    def is_unlimited(self, name: str) -> bool:
        """Whether it is a task whose messages something else takes than Celery's own strategy."""
        return name not in self.named and has_own_strategy(self._app.tasks[name])

    def _bucket_for_task(self, task: Any) -> TaskBucket | None:
        """In Celery's place: the bucket of a task, or None for one that no limit can be for."""
        engine, name = self.engine, task.name
        limits = self._declared.limits(task)
        if limits or name in engine.lanes.declared or engine.overrides.get(name) is not None:
            engine.declare(name, limits)
            if limit_override := engine.overrides.limit_override(name):
                self._declared.show(task, limit_override.rate if limit_override.limits else None)
            else:
                self._declared.restore(task)
        elif not engine.lanes.may_pass(name):
            return None
        return self._buckets.setdefault(name, TaskBucket(self._queues, engine, self._pool.pass_on))

    def _on_override(self, name: str) -> None:
        """An operator has changed the override of a bucket, or an override has ended."""
        if name in self.named:
            self.engine.refresh(name)
        elif (task := self._app.tasks.get(name)) is not None:
            self._celery_buckets[name] = self._bucket_for_task(task)
