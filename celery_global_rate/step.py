"""Where this extension meets Celery's worker. The only file that knows the insides of consumer and pool.

The seam is one method of the consumer, `bucket_for_task`, replaced on the instance. Celery asks it for the bucket of
every task, puts what it receives into that bucket, and drains it by a timer of its own; ours never yields anything
to that timer and releases requests itself. `tests/test_seams.py` has one test for each attribute used here.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import bootsteps
from celery.worker import state

from .bucket import Bucket
from .connection import HubConnection
from .control import refuse_bad_rates
from .credit import Credit
from .declared import declared_limit
from .limiter import Limiter
from .loop import Alarm, Waker
from .outage import Outage
from .scheduler import FULL_POOL_POLL_S, Scheduler
from .settings import Settings

logger = logging.getLogger(__name__)


class TaskBucket:
    """The bucket Celery sees: one object per task for as long as the worker lives.

    Strategies and timers of ETA tasks keep a reference, so a new limit changes this object and never replaces it.
    """

    #: Celery's own drain looks in here and finds nothing.
    contents: tuple[Any, ...] = ()

    def __init__(self, step: GlobalRateLimit, bucket: Bucket) -> None:
        self._step = step
        self.bucket = bucket

    def __bool__(self) -> bool:
        return True  # Celery tests `if bucket:`

    def add(self, item: tuple[Any, int]) -> None:
        """Take a request that was received, or whose ETA has come."""
        self._step.hold(self.bucket, item[0])

    def pop(self) -> Any:
        """Nothing, ever."""
        raise IndexError("requests are released by global-rate")

    def clear_pending(self) -> None:
        """The broker connection is gone, and with it the right to acknowledge what is held."""
        self._step.clear()


class WorkerPool:
    """Celery's pool, as the scheduler sees it.

    Args:
        consumer: the worker's consumer.
        ended: called with the run time in seconds, in any thread, when a task that was released has ended.
    """

    def __init__(self, consumer: Any, ended: Callable[[float], None]) -> None:
        self._consumer = consumer
        self._ended = ended

    @property
    def processes(self) -> int:
        """Tasks that can run at the same time; follows autoscale."""
        return int(self._consumer.pool.num_processes)

    @property
    def free(self) -> int:
        """Processes without a task. The pool's semaphore counts too many after a reconnect or a recycled process."""
        return self.processes - max(len(state.reserved_requests), len(state.active_requests))

    @property
    def oldest_s(self) -> float:
        """How long the oldest running task has been running, limited or not."""
        try:
            started = [request.time_start for request in state.active_requests if request.time_start]
        except RuntimeError:  # a thread of the pool has changed the set meanwhile
            return 0.0
        return max(0.0, time.time() - min(started)) if started else 0.0

    def is_gone(self, request: Any) -> bool:
        """Whether it was revoked or has expired; Celery then announces and acknowledges it."""
        if request.expires is None and not state.revoked and not state.revoked_stamps:
            return False  # asking costs more than all else here does
        return bool(request.revoked())

    def start(self, request: Any) -> None:
        """Hand over as Celery's own limit does, and listen for the end."""
        celery_on_success = request.on_success

        def on_success(outcome: tuple[bool, Any, float], **kwargs: Any) -> None:
            del request.on_success  # a cycle, and Celery's own is there again
            try:
                celery_on_success(outcome, **kwargs)
            finally:
                self._ended(outcome[2])

        request.on_success = on_success
        state.task_reserved(request)
        self._consumer.on_task_request(request)


class GlobalRateLimit(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """A consumer bootstep that makes `rate_limit` hold for the whole cluster.

    ``app.steps['consumer'].add(GlobalRateLimit)`` switches it on. In any window of length w at most
    ``b + (w + D + R) / T`` tasks of a limit are released, whatever workers come, go, stall or die, while Redis
    answers: burst b, emission interval T, grace D (25 ms, or T/10 up to 1 s where that is more), and R, about one
    round trip to Redis. While Redis does not answer, tasks with a limit are held.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, global_rate_url: str | None = None, **kwargs: Any) -> None:
        self._url = global_rate_url
        super().__init__(consumer, **kwargs)

    def include_if(self, consumer: Any) -> bool:
        """Leave Celery as it is where limits are switched off, or where there is no event loop to live in."""
        if consumer.disable_rate_limits:
            return False
        if consumer.hub is None:
            logger.warning(
                "global-rate: this pool or transport has no event loop, which is not supported yet: "
                "limits hold for each worker, as in stock Celery"
            )
        return consumer.hub is not None

    def create(self, consumer: Any) -> None:
        """Take the seam. Buckets that Celery has built already are replaced by ours."""
        settings = self.settings = Settings.from_app(consumer.app, self._url)
        self._app = consumer.app
        self._consumer = consumer
        self._recoverable = consumer.connection_errors + consumer.channel_errors
        self._task_buckets: dict[str, TaskBucket] = {}
        outage = Outage(settings.address)
        self._waker = Waker(self._guarded)
        self._alarm = Alarm(self._pump, self._waker)
        self._connection = HubConnection(settings.connection, self._waker, outage.connected)
        worker = f"{consumer.hostname}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.limiter = Limiter(self._connection, settings.key_prefix, worker, outage.replied)
        pool = WorkerPool(consumer, self._ended)
        self.scheduler = Scheduler(pool, self.limiter, self._alarm.set, time.monotonic, random.random)
        self._credit = Credit(settings.max_held)
        consumer.bucket_for_task = self._bucket_for_task
        consumer.reset_rate_limits()
        refuse_bad_rates()

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """Move into the event loop: at start, and again after each reconnect to the broker."""
        self._loop_thread = threading.get_ident()
        self._waker.attach(hub)
        self._alarm.attach(hub)
        self._connection.attach(hub)

    def start(self, consumer: Any) -> None:
        """Nothing to do before there is an event loop."""

    def stop(self, consumer: Any) -> None:
        """Give slots back and let go of the loop: at shutdown, and when the broker connection is lost."""
        self.clear()
        self._alarm.detach()
        self._connection.detach()
        if consumer.hub:
            self._waker.detach(consumer.hub)

    def shutdown(self, consumer: Any) -> None:
        """The worker ends."""
        self._waker.close()

    def info(self, consumer: Any) -> dict[str, Any]:
        """What `celery inspect stats` shows."""
        clock = self.limiter.clock
        return {
            "global_rate": {
                "redis": self.settings.address,
                "prefix": self.settings.key_prefix,
                "held": self.scheduler.held,
                "missed_slots": self.scheduler.missed,
                "prefetch_lent": self._credit.lent,
                "clock_uncertainty_ms": round(clock.uncertainty_s * 1000, 3) if clock.widest_s else None,
                "widest_clock_uncertainty_ms": round(clock.widest_s * 1000, 3) if clock.widest_s else None,
            }
        }

    def hold(self, bucket: Bucket, request: Any) -> None:
        """Take a request into a bucket."""
        self._guarded(partial(self.scheduler.hold, bucket, request))

    def clear(self) -> None:
        """Forget what is held; the broker delivers it again."""
        self.scheduler.clear()
        self._cover()

    def _bucket_for_task(self, task: Any) -> TaskBucket | None:
        """In Celery's place: the bucket of a task, or None for one that never had a limit."""
        limit = declared_limit(self._app, task)
        known = self._task_buckets.get(task.name)
        if known is None and limit is not None:
            known = self._task_buckets[task.name] = TaskBucket(self, Bucket(task.name, limit))
        elif known is not None:
            self._guarded(partial(self.scheduler.configure, known.bucket, limit))
        return known

    def _ended(self, run_time_s: float) -> None:
        self.scheduler.pace.ran(run_time_s)
        if threading.get_ident() == self._loop_thread:
            self._pump()
        else:
            self._waker.call(self._pump)

    def _pump(self) -> None:
        self._guarded(self.scheduler.pump)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run a part of the message path: an error of ours must not end the worker, one of the broker must reach it."""
        try:
            action()
        except self._recoverable:
            raise
        except Exception:
            logger.exception("global-rate: held tasks will be tried again")
            self._alarm.set(time.monotonic() + FULL_POOL_POLL_S)
        self._cover()

    def _cover(self) -> None:
        if self._consumer.qos is not None:
            self._credit.attach(self._consumer.qos)
            self._credit.cover(self.scheduler.held)
