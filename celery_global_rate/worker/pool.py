"""Celery's pool, as the scheduler sees it: what is free, what waits, what has begun and ended.

`tests/test_seams.py` has one test for each attribute of Celery's that is used here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from celery.worker import state

from ..broker.held_request import HeldRequest
from ..scheduling.capacity import PLACES
from .failures import fail
from .loop import STOP_S
from .lost_tasks import fail_lost_tasks, keep_running_tasks
from .pool_queue import PoolQueue, SemaphoreLine
from .results import asked_once

#: Places for each greenlet of the pool, instead of `PLACES`. The greenlet that takes messages waits there as well, with
#: one task: more of ours would leave it few turns. With fewer, where tasks of equal length end together, we would have
#: fewer turns than the others.
GREEN_PLACES = 0.5


class CeleryPool:
    """Celery's pool, as the scheduler sees it.

    Args:
        consumer: the worker's consumer.

    Attributes:
        line: our places in the line for a process.
        has_deck: whether a released task of a quick kind may wait for a process although nobody else waits.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._has_begun = False
        #: Whether a request was ever held that can expire.
        self._has_expiring = False
        self._ended: Callable[[float], None] = lambda run_time_s: None
        self._call: Callable[..., None] = lambda action, *args: action(*args)
        self.line: SemaphoreLine | PoolQueue
        #: Released tasks that the pool has not begun, and those that it has: when, in monotonic seconds.
        self._waiting: dict[Any, None] = {}
        self._running: dict[Any, float] = {}
        #: Releases that wait for a greenlet of the pool.
        self._starting: set[threading.Thread] = set()
        controller, hub = consumer.controller, consumer.hub
        is_guarded = controller.pool_cls.uses_semaphore and controller.pool_putlocks
        self.has_deck = bool(hub or not is_guarded) and not consumer.pool.is_green
        if is_guarded and hub:
            self.line = SemaphoreLine(controller.semaphore)
        else:
            per_process = GREEN_PLACES if consumer.pool.is_green else PLACES
            self.line = PoolQueue(
                lambda: self.free, lambda: self.on_deck, lambda: max(1, int(per_process * self.processes))
            )
        if not controller.pool_cls.uses_semaphore:
            fail_lost_tasks(consumer.pool)

    def begin(self) -> None:
        """The worker is connected, and its pool has started."""
        if not self._has_begun and hasattr(getattr(self._consumer.pool, "_pool", None), "_cache"):
            keep_running_tasks(self._consumer.pool)
        self._has_begun = True

    def listen(self, ended: Callable[[float], None], ready: Callable[[], None], call: Callable[..., None]) -> None:
        """Call `ended` with the run time of each released task, in any thread; `ready` when a turn has come.

        `call` runs what else has to be in the worker's loop.
        """
        self._ended, self.line.ready, self._call = ended, ready, call

    @property
    def processes(self) -> int:
        """Tasks that can run at the same time; follows autoscale. None in a pool that has ended."""
        pool = self._consumer.pool
        if not pool.active:  # in a cold shutdown the loop may turn once more
            return 0
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
    def started(self) -> list[float]:
        """When our tasks that run now began to, in monotonic seconds: the oldest first."""
        running = self._running
        self._drop(running, state.active_requests)
        if len(running) > self.processes:  # after one that runs for long, some may have been lost with their processes
            for lost in [request for request in list(running) if request not in state.active_requests]:
                running.pop(lost, None)
                _unwrap(lost)
        return list(running.values())  # at once: threads of the pool change it meanwhile

    @staticmethod
    def _drop(ours: dict[Any, Any], celerys: Any) -> None:
        """Forget our first ones that Celery has finished without a callback: revoked, or lost with their process."""
        for first in list(ours):
            if first in celerys:
                break
            ours.pop(first, None)
            _unwrap(first)

    def is_gone(self, held: HeldRequest) -> bool:
        """Whether it was revoked, by its id or a stamp, or has expired, as far as this worker knows."""
        request = held.request
        if request.expires is not None and request.maybe_expire():
            return True
        return request.id in state.revoked or (bool(state.revoked_stamps) and _is_revoked_by_stamp(request))

    def may_be_gone(self, requests: Iterable[HeldRequest]) -> bool:
        """Whether one of these was revoked or can expire: a quick look at many, or at none if none ever could."""
        revoked = state.revoked
        if not (revoked or self._has_expiring):
            return bool(state.revoked_stamps)
        return bool(state.revoked_stamps) or any(
            held.request.expires is not None or held.request.id in revoked for held in requests
        )

    def dismiss(self, held: HeldRequest) -> bool:
        """Have Celery announce that it is gone, store that and acknowledge it; False if Celery thinks otherwise.

        One that cannot start fails.
        """
        request = held.request
        with asked_once(request.task.backend):
            if held.error:
                fail(request, held.error)
                self.hide([held])
                return True
            return bool(request.revoked())

    def show(self, held: HeldRequest) -> None:
        """Let `query_task` and `revoke` find a held request. Celery 5.7 has a word for its state: scheduled."""
        request = held.request
        self._has_expiring = self._has_expiring or request.expires is not None
        if hasattr(state, "task_scheduled"):
            state.task_scheduled(request)
        else:
            state.requests[request.id] = request

    def hide(self, requests: Iterable[HeldRequest]) -> None:
        """These are held no longer."""
        for held in requests:
            state.task_ready(held.request)

    def line_up(self, places: int, wanted: int) -> None:
        """Take places in the line for a process. Celery's autoscaler counts only what has been released."""
        self.line.line_up(places, wanted)
        scaler = self._consumer.controller.autoscaler
        more = min(wanted, scaler.max_concurrency - self.processes) if wanted and scaler else 0
        if more > 0:
            with scaler.mutex:
                scaler.scale_up(more)
                scaler.pool.maintain_pool()

    def start(self, held: HeldRequest, failed: Callable[[Exception], None]) -> None:
        """Release a request as Celery's own limit does, and note when it begins and ends.

        A full pool of greenlets lets the release itself wait for one of them. It does so in a greenlet of its own, or
        our loop would see nothing of the slots that come meanwhile.

        Args:
            held: the request.
            failed: called in our loop if such a release ends in an error.
        """
        request = held.request
        request.on_accepted = partial(self._on_accepted, request, request.on_accepted)
        request.on_success = partial(self._on_success, request, request.on_success)
        self.line.take()
        self._waiting[request] = None
        state.task_reserved(request)
        if self._consumer.pool.is_green and self.free < 0:
            release = threading.Thread(target=self._release_later, args=(held, failed), daemon=True)
            self._starting.add(release)
            release.start()
        else:
            self._release(held)

    def _release(self, held: HeldRequest) -> None:
        try:
            self._consumer.on_task_request(held.request)
        except Exception:
            if not self.has_accepted(held):
                self._withdraw(held)
            raise

    def _release_later(self, held: HeldRequest, failed: Callable[[Exception], None]) -> None:
        try:
            self._release(held)
        except Exception as exc:
            self._call(failed, exc)
        finally:
            self._starting.discard(threading.current_thread())

    def wait_for_starts(self) -> None:
        """What was released begins before the pool is told to end, unless no greenlet becomes free in time."""
        until = time.monotonic() + STOP_S
        for release in list(self._starting):
            release.join(max(0.0, until - time.monotonic()))

    def pass_on(self, request: Any) -> None:
        """Start a request of Celery's that no limit is for, as Celery does where a task has no bucket."""
        state.task_reserved(request)
        for callback in self._consumer.on_task_message:
            callback(request)
        self._consumer.on_task_request(request)

    def _on_accepted(self, request: Any, celerys: Callable[..., None], pid: int, time_accepted: float) -> None:
        _unwrap(request, "on_accepted")
        self._waiting.pop(request, None)
        self._running[request] = time_accepted
        celerys(pid, time_accepted)

    def _on_success(self, request: Any, celerys: Callable[..., None], outcome: Any, **kwargs: Any) -> None:
        """A task has ended, in whatever way, and its process goes on."""
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

    def has_accepted(self, held: HeldRequest) -> bool:
        """Whether a request began to run although `start` has ended in an error: a solo pool runs it in there."""
        return bool(held.request.time_start)

    def _withdraw(self, held: HeldRequest) -> None:
        request = held.request
        _unwrap(request)
        self._waiting.pop(request, None)
        self.line.withdraw()
        state.task_ready(request)
        self.show(held)

    def clear(self) -> None:
        """Forget our places in the line, as Celery forgets all others."""
        self.line.clear()
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
