"""All that limits one worker, assembled: it lives in one event loop and takes work from any thread."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

from ..broker.ack_deadline import AckDeadline
from ..broker.aside import Aside, ConsumedQueues
from ..broker.held_request import HeldRequest
from ..broker.prefetch import Credit, Renew
from ..limits.bucket import Bucket
from ..limits.limit import Limits
from ..limits.override import Override
from ..named_buckets import NamedBucket
from ..scheduling.capacity import WorkerPool
from ..scheduling.chores import Chores
from ..scheduling.faults import FIRST_PAUSE_S, Faults
from ..scheduling.lane import Lane
from ..scheduling.scheduler import Scheduler
from ..scheduling.sweep import SWEEP_S, Sweep
from ..settings import Settings
from ..storage.blocking_store import ERRORS, BlockingStore
from ..storage.session import Session
from ..storage.waker import Waker
from ..version import __version__
from .costs import RequestCosts
from .dismissals import Dismissals
from .keys import key_value
from .lanes import Lanes
from .loop import Alarm

logger = logging.getLogger(__name__)

#: The most that another thread waits for the loop, in seconds.
LOOP_TIMEOUT_S = 1.0


class Engine:
    """Scheduler, limiter and connection of a worker.

    Args:
        settings: where the limits are kept.
        worker: a name that is unique to this process.
        pool: where released requests go.
        qos: the consumer's `kombu.common.QoS` of this moment, or None.
        queues: the consumer's.
        renewal: returns for a QoS how its consumer is restarted, or None if its prefetch count follows each change.
        ack_deadline: the broker's.
        recoverable: errors of the broker, which must reach the worker if we run in its own loop.
        named: the named buckets of the application.
        tasks: the names of all tasks.
        on_override: called with the name of a bucket that has a new override.
        mark: notes at Celery's request which buckets it passes.
    """

    def __init__(
        self,
        settings: Settings,
        worker: str,
        pool: WorkerPool,
        qos: Callable[[], Any],
        queues: ConsumedQueues,
        renewal: Callable[[Any], Renew | None],
        ack_deadline: AckDeadline,
        recoverable: tuple[type[BaseException], ...],
        named: Mapping[str, NamedBucket],
        tasks: Callable[[], Iterable[str]],
        on_override: Callable[[str], None],
        mark: Callable[[Any, tuple[Bucket, ...]], None],
    ) -> None:
        self.settings = settings
        self._pool = pool
        self._qos = qos
        self._ack_deadline = ack_deadline
        self._faults = Faults(passing=recoverable)
        self._thread: int | None = None
        self._waker = Waker(self._guarded)
        self._alarm = Alarm(self.pump, self._waker)
        self.session = Session(
            settings,
            settings.on_outage,
            worker,
            self._waker,
            self._alarm.set,
            lambda: self.scheduler.in_one_turn(),
            lambda: self.scheduler.held,
            self._recovered,
            on_override,
            lambda name, value: self.lanes.heed(name, value),
        )
        self.limiter, self.overrides = self.session.limiter, self.session.overrides
        self.lanes = Lanes(
            named,
            tasks,
            self.overrides,
            self.session.back_offs,
            lambda *in_force: self.scheduler.configure(*in_force),
        )
        self._mark = mark
        self._costs = RequestCosts(named)
        #: Of requests that cost nothing, if nobody waits before them.
        self._free = Lane("what costs nothing", (), attrgetter("rank"))
        self.aside = Aside(
            settings.max_held,
            queues,
            lambda: self.scheduler.held,
            lambda: self.scheduler.busy,
            self.session.clock,
            time.monotonic,
        )
        self._credit = Credit(settings.max_held, self.aside.room, renewal)
        self.scheduler = Scheduler(
            pool, self.limiter, self._alarm.set, self._cover, time.monotonic, random.random, self._faults
        )
        sweep = Sweep(lambda: self.scheduler.busy, self.scheduler.is_gone, self.scheduler.may_be_gone, time.monotonic)
        dismissals = Dismissals(
            lambda: self.scheduler.leaving, pool.dismiss, self.scheduler.left, self._faults, time.monotonic
        )
        self._chores = Chores(
            {
                "putting queues aside": self.aside.keep_up,
                "keeping held messages": self._keep_held,
                "looking for revoked tasks": sweep.keep_up,
                "dismissing revoked tasks": dismissals.keep_up,
                **self.session.chores,
            },
            self._faults,
        )
        self._last_held = float("-inf")
        #: What was held when the connection to the broker was lost, or the worker began to end.
        self.dropped: list[HeldRequest] = []
        pool.listen(self._ended, self.pump, self._run)

    @property
    def last_held(self) -> float:
        """The last instant at which a task was held (monotonic seconds); from any thread, right after `hold` too."""
        if self.scheduler.held:
            self._last_held = time.monotonic()
        return self._last_held

    def attach(self, hub: Any) -> None:
        """Move into a loop: at start, and again after each reconnect to the broker. Called in that loop."""
        self._thread = threading.get_ident()
        self._waker.attach(hub)
        self._alarm.attach(hub)
        self.session.attach(hub)
        self.aside.begin()
        self.dropped = []
        self._ack_deadline.until = time.monotonic()  # another broker, perhaps
        self._alarm.set(self._ack_deadline.until)

    def detach(self, hub: Any) -> None:
        """Give slots back and let go of the loop. Called in it."""
        self._clear()
        self._alarm.detach()
        self.session.detach()
        self._waker.detach(hub)
        self._thread = None

    def close(self) -> None:
        """The worker ends."""
        self._waker.close()

    def hold(self, request: HeldRequest) -> None:
        """Take a request in."""
        self._last_held = time.monotonic()
        self._faults.guard("showing a held task", self._pool.show, request)
        self._run(self._hold, request)

    def declare(self, task: str, limits: Limits) -> None:
        """Put the limit in force that an operator has set for a task, or else the one that it declares."""
        self._run(self._declare, task, limits)

    def refresh(self, name: str) -> None:
        """The same for a named bucket."""
        self._run(self.lanes.refresh, name)

    def clear(self) -> None:
        """Forget what is held; the broker delivers it again. Done when this returns."""
        done = threading.Event()
        self._run(self._clear)
        self._run(done.set)
        done.wait(LOOP_TIMEOUT_S)

    def pump(self) -> None:
        """Do what is due."""
        self._guarded(self.scheduler.pump)
        self._guarded(self._keep_up)

    def _keep_up(self) -> None:
        self._alarm.set(self._chores.keep_up(time.monotonic()))

    def read_overrides(self) -> None:
        """Read the overrides from before this worker began. It waits for Redis, so it is for the start of a worker.

        Without an answer the worker starts anyway: Redis refuses slots to a worker with an outdated override.
        """
        with contextlib.suppress(*ERRORS), BlockingStore(self.settings, clock=self.limiter.clock) as store:
            for name, override in store.overrides().items():
                self.overrides.load(name, override)

    @property
    def blocked_s(self) -> float:
        """For how long the loop has been blocked, in seconds, now or a moment ago; 0 if it is not."""
        return self._alarm.blocked_s

    def obey(self, name: str, override: Override) -> None:
        """Apply an override that was just written. Called in any thread."""
        self._run(self._learn, name, override.text)

    def info(self) -> dict[str, Any]:
        """What `celery inspect stats` shows, and `check` compares. It also looks after an idle connection."""
        session, clock = self.session, self.session.clock
        outage = session.trouble
        self._run(session.inquire)
        return {
            "version": __version__,
            "redis": self.settings.address,
            "run_id": session.outage.server.run_id,
            "database": self.settings.database,
            "outage": outage,
            "on_outage": self.settings.on_outage,
            "workers": session.heartbeat.most,
            "prefix": self.settings.key_prefix,
            "buckets": {name: bucket.digest for name, bucket in self.lanes.named.items()},
            "held": self.scheduler.held,
            "missed_slots": self.scheduler.missed,
            "prefetch_lent": self._credit.lent,
            "queues_aside": sorted(self.aside.names),
            "clock_uncertainty_ms": round(clock.uncertainty_s * 1000, 3) if clock.widest_s else None,
            "widest_clock_uncertainty_ms": round(clock.widest_s * 1000, 3) if clock.widest_s else None,
        }

    def _recovered(self) -> None:
        """Redis is back: slots that the policy has given out are void."""
        self.scheduler.let_go()
        self._alarm.set(time.monotonic())

    def _run(self, action: Callable[..., None], *args: Any) -> None:
        """Run an action: at once in our loop or if there is none; soon from another thread."""
        if self._thread is None or self._thread == threading.get_ident():
            self._guarded(action, *args)
        else:
            self._waker.call(partial(action, *args))

    def _declare(self, task: str, limits: Limits) -> None:
        if self.lanes.declare(task, limits):
            for request in self.scheduler.take_out(lambda held: held.task_name == task):
                self._put(request)

    def _put(self, request: HeldRequest) -> None:
        """Let a request wait in its lane, or fail if it says something of its cost that cannot be meant."""
        task, queue = request.task_name, request.queue_name
        lane = self.lanes.lane(task, queue, partial(key_value, request.request))
        self._faults.guard("noting what an answer would back off", self._mark, request.request, lane.buckets)
        try:
            request.costs = self._costs.read(request.request, self.lanes.names(task, queue))
        except ValueError as exc:
            logger.error("global-rate: %s; %s fails", exc, request.id)
            request.error = exc.with_traceback(None)  # its frames have the request
            self.scheduler.refuse(lane, request)
        else:
            self.scheduler.hold(self._free if self._passes(lane, request) else lane, request)

    def _passes(self, lane: Lane, request: HeldRequest) -> bool:
        """Whether a request costs nothing, and has nobody before it and no pause to wait for."""
        if request.costs is None or any(request.costs) or lane.held_count:
            return False
        return lane.opens(self.limiter.clock) <= time.monotonic()

    def _hold(self, request: HeldRequest) -> None:
        self._faults.guard("lending prefetch slots", self._credit.received)
        self._faults.guard("putting queues aside", self.aside.received)
        self._faults.guard("keeping held messages", self._ack_deadline.hold, request)
        self._put(request)
        self._alarm.set(time.monotonic() + SWEEP_S)

    def _learn(self, name: str, override: str) -> None:
        self.overrides.learn(name, override)

    def _keep_held(self, now: float) -> float:
        if self._ack_deadline.until <= now and self._ack_deadline.keep_up(now, self.scheduler.requests):
            self._forget()
            self.scheduler.pump()
        return self._ack_deadline.until

    def _clear(self) -> None:
        self.dropped += self.scheduler.requests
        self._faults.guard("putting queues aside", self.aside.forget)
        self._forget()
        self._faults.guard("leaving the pool", self._pool.clear)

    def _forget(self) -> None:
        """Forget what is held; the broker delivers it again."""
        self._faults.guard("hiding held tasks", self._pool.hide, self.scheduler.requests)
        self.scheduler.clear()

    def _ended(self, run_time_s: float) -> None:
        self._run(self.scheduler.ended, run_time_s)

    def _guarded(self, action: Callable[..., None], *args: Any) -> None:
        """Run a part of the message path: an error of ours must not end the worker, one of the broker must reach it."""
        if not self._faults.guard("the loop's turn", action, *args):
            self._alarm.set(time.monotonic() + FIRST_PAUSE_S)

    def _cover(self, held: int) -> None:
        self._credit.cover(held, self._qos())
