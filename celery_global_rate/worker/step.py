"""Where this extension meets Celery's worker. The only file that knows the insides of consumer and pool.

The seam is one method of the consumer, `bucket_for_task`, replaced on the instance. Celery asks it for the bucket of
every task, puts what it receives into that bucket, and drains it by a timer of its own; ours never yields anything
to that timer and releases requests itself. `tests/test_seams.py` has one test for each attribute used here.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from celery import bootsteps
from celery.worker import state

from ..broker.ack_deadline import Patience
from ..broker.delivery import Losses, acknowledge_in_turn, give_back, look_up_often, renewal
from ..broker.queues import Queues, rank_of
from ..declared_limits import Declared, has_own_strategy
from ..limits.limit import Limit
from ..scheduling.bucket import Bucket
from ..scheduling.capacity import PLACES
from ..settings import Settings
from . import control  # noqa: F401  (commands)
from .engine import Regulator
from .gc_freeze import leave_to_fork, replaces_processes
from .loop import HubThread
from .lost_tasks import fail_lost_tasks
from .pidbox import Broadcast
from .pool_queue import PoolQueue, SemaphoreLine
from .results import asked_once
from .status import announce
from .task_bucket import TaskBucket


class CeleryPool:
    """Celery's pool, as the scheduler sees it.

    Args:
        consumer: the worker's consumer.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._ended: Callable[[float], None] = lambda run_time_s: None
        self._line: SemaphoreLine | PoolQueue
        #: Released tasks that the pool has not begun, and those that it has: when, in monotonic seconds.
        self._waiting: dict[Any, None] = {}
        self._running: dict[Any, float] = {}
        controller, hub = consumer.controller, consumer.hub
        is_guarded = controller.pool_cls.uses_semaphore and controller.pool_putlocks
        self.has_deck = bool(hub or not is_guarded) and not consumer.pool.is_green
        if is_guarded and hub:
            self._line = SemaphoreLine(controller.semaphore)
        else:
            # To hand over to greenlets waits for one of them, so ours would wait in our own loop.
            is_green = consumer.pool.is_green
            most = (lambda: 1) if is_green else (lambda: PLACES * self.processes)
            self._line = PoolQueue(lambda: self.free, lambda: self.on_deck, most)
        if not controller.pool_cls.uses_semaphore:
            fail_lost_tasks(consumer.pool)

    def listen(self, ended: Callable[[float], None], ready: Callable[[], None]) -> None:
        """Call `ended` with the run time of each released task, in any thread; `ready` when a turn has come."""
        self._ended, self._line.ready = ended, ready

    @property
    def processes(self) -> int:
        """Tasks that can run at the same time; follows autoscale."""
        pool = self._consumer.pool
        # gevent's num_processes is how many do run, before Celery 5.4
        return pool._pool.size if pool.is_green else pool.num_processes  # type: ignore[no-any-return]

    @property
    def free(self) -> int:
        """Processes without a task. The pool's semaphore counts too many after a reconnect or a recycled process."""
        taken = max(len(state.reserved_requests), len(state.active_requests))
        return self.processes - taken

    @property
    def on_deck(self) -> int:
        """Released tasks that wait for a process."""
        self._drop(self._waiting, state.reserved_requests)
        return len(self._waiting)

    @property
    def turns(self) -> int:
        """Processes that are kept for us."""
        return self._line.turns

    @property
    def in_front(self) -> int:
        """Places whose turn has come."""
        return self._line.in_front

    @property
    def wait_s(self) -> float:
        """How long one of them waits for a process, in seconds."""
        return self._line.wait_s

    @property
    def started(self) -> list[float]:
        """When our tasks that run now began to, in monotonic seconds: the oldest first."""
        running = self._running
        self._drop(running, state.active_requests)
        if len(running) > self.processes:  # behind one that runs for long, some were lost with their processes
            for lost in [request for request in list(running) if request not in state.active_requests]:
                running.pop(lost, None)
                _unwrap(lost)
        return list(running.values())  # at once: threads of the pool change it meanwhile

    @staticmethod
    def _drop(ours: dict[Any, Any], celerys: Any) -> None:
        """Forget the first ones of ours that Celery has done with, and never told: revoked, lost with their process."""
        for first in list(ours):
            if first in celerys:
                break
            ours.pop(first, None)
            _unwrap(first)

    def is_gone(self, request: Any) -> bool:
        """Whether it was revoked, by its id or a stamp, or has expired, as far as this worker knows."""
        if request.expires is not None and request.maybe_expire():
            return True
        return request.id in state.revoked or (bool(state.revoked_stamps) and _is_revoked_by_stamp(request))

    def dismiss(self, request: Any) -> bool:
        """Have Celery announce that it is gone, store that and acknowledge it; False if Celery thinks otherwise."""
        with asked_once(request.task.backend):
            return bool(request.revoked())

    def show(self, request: Any) -> None:
        """Let `query_task` and `revoke` find a held request. Celery 5.7 has a word for its state: scheduled."""
        if hasattr(state, "task_scheduled"):
            state.task_scheduled(request)
        else:
            state.requests[request.id] = request

    def hide(self, requests: Iterable[Any]) -> None:
        """These are held no longer."""
        for request in requests:
            state.task_ready(request)

    def line_up(self, places: int, wanted: int) -> None:
        """Take places in the line for a process. Celery's autoscaler counts only what has been released."""
        self._line.line_up(places, wanted)
        scaler = self._consumer.controller.autoscaler
        more = min(wanted, scaler.max_concurrency - self.processes) if wanted and scaler else 0
        if more > 0:
            with scaler.mutex:
                scaler.scale_up(more)
                scaler.pool.maintain_pool()

    def start(self, request: Any) -> None:
        """Hand over as Celery's own limit does, and listen for the begin and the end."""
        request.on_accepted = partial(self._on_accepted, request, request.on_accepted)
        request.on_success = partial(self._on_success, request, request.on_success)
        self._line.take()
        self._waiting[request] = None
        state.task_reserved(request)
        try:
            self._consumer.on_task_request(request)
        except Exception:
            if not self.has_accepted(request):
                self._withdraw(request)
            raise

    def _on_accepted(self, request: Any, celerys: Callable[..., None], pid: int, time_accepted: float) -> None:
        _unwrap(request, "on_accepted")
        self._waiting.pop(request, None)
        self._running[request] = time_accepted
        celerys(pid, time_accepted)

    def _on_success(self, request: Any, celerys: Callable[..., None], outcome: Any, **kwargs: Any) -> None:
        """A task has ended, in whatever way but with its process."""
        _unwrap(request, "on_success")
        self._waiting.pop(request, None)
        started = self._running.pop(request, None)
        try:
            celerys(outcome, **kwargs)
        finally:
            # Celery measures only what succeeds. A failed task has kept its process busy as well.
            run_time_s = outcome[2]
            if run_time_s is None:
                run_time_s = time.monotonic() - (float("nan") if started is None else started)
            self._ended(run_time_s)

    def has_accepted(self, request: Any) -> bool:
        """Whether a request began to run although `start` has ended in an error: a solo pool runs it in there."""
        return bool(request.time_start)

    def _withdraw(self, request: Any) -> None:
        _unwrap(request)
        self._waiting.pop(request, None)
        self._line.withdraw()
        state.task_ready(request)
        self.show(request)

    def clear(self) -> None:
        """Forget our places in the line, as Celery forgets all others."""
        self._line.clear()
        self._waiting.clear()
        self._running.clear()


def _unwrap(request: Any, *names: str) -> None:
    """Give a request Celery's own callbacks again: ours make cycles, which wait for the garbage collector for long."""
    for name in names or ("on_accepted", "on_success"):
        vars(request).pop(name, None)


def _is_revoked_by_stamp(request: Any) -> bool:
    """Whether a stamped header of a request has a value that was revoked."""
    revoked, stamps = state.revoked_stamps, request.stamps
    return any(
        not set(_values(stamps[header])).isdisjoint(_values(revoked[header]))
        for header in request.stamped_headers
        if header in revoked and stamps.get(header) is not None
    )


def _values(stamp: Any) -> Any:
    return stamp if isinstance(stamp, (list, tuple, set)) else [stamp]


class GlobalRateLimit(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """A consumer bootstep that makes `rate_limit` hold for the whole cluster.

    ``app.steps['consumer'].add(GlobalRateLimit)`` switches it on. In any window of length w at most
    ``b + (w + D + R) / T`` tasks of a limit are released, whatever workers come, go, stall or die, while Redis
    answers: burst b, emission interval T, grace D (25 ms, or T/10 up to 1 s where that is more), and R, about one
    round trip to Redis. What they do while Redis does not answer is up to `global_rate_on_outage`.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, consumer: Any, global_rate_url: str | None = None, **kwargs: Any) -> None:
        self._url = global_rate_url
        super().__init__(consumer, **kwargs)

    def include_if(self, consumer: Any) -> bool:
        """Leave Celery as it is where limits are switched off."""
        return not consumer.disable_rate_limits

    def create(self, consumer: Any) -> None:
        """Take the seam. Buckets that Celery has built already are replaced by ours."""
        self._app = consumer.app
        self._declared = Declared(consumer.app)
        self.hostname: str = consumer.hostname
        self._celery_buckets = consumer.task_buckets
        #: By the names of their tasks: of all that have a limit, or had one, or an order.
        self.buckets: dict[str, TaskBucket] = {}
        self._thread = None if consumer.hub else HubThread("global-rate")
        settings = Settings.from_app(consumer.app, self._url)
        self._queues = Queues(consumer)
        self._patience = Patience(consumer, settings.consumer_timeout_s)
        self.regulator = Regulator(
            settings,
            f"{consumer.hostname}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
            CeleryPool(consumer),
            lambda: consumer.qos,
            self._queues,
            partial(renewal, consumer),
            self._patience,
            () if self._thread else consumer.connection_errors + consumer.channel_errors,
            self._on_record,
        )
        self._losses = Losses(lambda: self.regulator.scheduler.requests)
        self.broadcast = Broadcast()
        self.regulator.read_orders()
        consumer.global_rate = self
        consumer.bucket_for_task = self._bucket_for_task
        consumer.reset_rate_limits()
        self._is_soft = False
        controller = consumer.controller
        if wait := getattr(controller, "wait_for_soft_shutdown", None):  # since Celery 5.5
            controller.wait_for_soft_shutdown = partial(self._begin_soft_shutdown, consumer, wait)
        now_us = self.regulator.limiter.clock.now_us(time.monotonic())
        declared = {name: known.declared for name, known in self.buckets.items()}
        unlimited = {name for name in declared if has_own_strategy(self._app.tasks[name])}
        announce(declared, unlimited, self.regulator.orders, now_us)

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """Move into the event loop: at start, and again after each reconnect to the broker."""
        self.regulator.attach(hub)

    def start(self, consumer: Any) -> None:
        """The worker is connected to its broker. Where it has no event loop, begin one."""
        self._queues.begin()
        self._losses.give_back(consumer.connection)
        self._losses.watch(consumer.connection)
        self._patience.begin()
        for step in consumer.steps:
            if (box := getattr(step, "box", None)) is not None:
                self.broadcast.listen(box.node)
        if replaces_processes(consumer.controller):
            leave_to_fork()
        if self._thread:
            self._thread.start(self.regulator.attach)
            look_up_often(consumer.connection, lambda: self.regulator.last_held)
            acknowledge_in_turn(consumer.connection.default_channel)

    def stop(self, consumer: Any) -> None:
        """Give slots back and let go of the loop: at shutdown, and when the broker connection is lost."""
        if not self._is_soft:
            self._let_go(consumer)
        if consumer.blueprint.state == bootsteps.CLOSE:  # it ends, and waits for its tasks before it lets go
            give_back(consumer, self.regulator.dropped)

    def _let_go(self, consumer: Any) -> None:
        self._queues.forget()
        if self._thread:
            self._thread.stop(self.regulator.detach)
        elif consumer.hub:
            self.regulator.detach(consumer.hub)

    def _begin_soft_shutdown(self, consumer: Any, wait: Callable[[], None]) -> None:
        """Give everything back before Celery waits for its tasks in the handler of a signal, where no loop turns."""
        if not self._is_soft and self._app.conf.worker_soft_shutdown_timeout > 0:
            self._is_soft = True
            self._let_go(consumer)
            give_back(consumer, self.regulator.dropped)
            self.regulator.dropped = []
        wait()

    def shutdown(self, consumer: Any) -> None:
        """The worker ends."""
        self.regulator.close()
        self._declared.restore_all()

    def info(self, consumer: Any) -> dict[str, Any]:
        """What `celery inspect stats` shows."""
        return {"global_rate": self.regulator.info()}

    def declared(self, name: str) -> Limit | None:
        """The limit that a task declares."""
        return self._declared.limit(self._app.tasks[name])

    def _bucket_for_task(self, task: Any) -> TaskBucket | None:
        """In Celery's place: the bucket of a task, or None for one that never had a limit."""
        limit = self._declared.limit(task)
        known = self.buckets.get(task.name)
        if known is None:
            if limit is None and self.regulator.orders.get(task.name) is None:
                return None
            known = self.buckets[task.name] = TaskBucket(self.regulator, Bucket(task.name, limit, rank_of))
        known.declared = limit
        self.regulator.configure(known.bucket, limit)
        if order := self.regulator.orders.in_force(task.name):
            self._declared.show(task, order.rate if order.limit else None)
        else:
            self._declared.restore(task)
        return known

    def _on_record(self, name: str) -> None:
        """An operator has ordered something for a bucket, or an order has ended."""
        task = self._app.tasks.get(name)
        if task is not None:
            self._celery_buckets[name] = self._bucket_for_task(task)
