"""A cluster in virtual time: real schedulers, simulated pools and network, and any bucket that answers `reserve`."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.costs import Costs
from celery_global_rate.limits.limit import PS_PER_US
from celery_global_rate.limits.redis_clock import RedisClock
from celery_global_rate.limits.reservation import Reply, Reservation, SlotsInHand
from celery_global_rate.limits.timing import HORIZON_S, LONGEST_SLEEP_S, REPLY_TIMEOUT_S
from celery_global_rate.scheduling.faults import Faults
from celery_global_rate.scheduling.lane import Lane
from celery_global_rate.scheduling.scheduler import Scheduler
from celery_global_rate.worker.dismissals import Dismissals
from celery_global_rate.worker.pool_queue import SemaphoreLine

from ..limits.oracle import Oracle

#: Redis' clock at virtual second 0.
EPOCH_US = 1_800_000_000_000_000

#: What the names of tasks without a limit begin with.
OTHER = "other "

#: Of buckets, so many slots for a worker at an instant; and what they cost, where that is not one unit each.
Reserve = Callable[..., SlotsInHand]
GiveBack = Callable[[tuple[Bucket, ...], SlotsInHand, int], None]


class World:
    """Virtual time: a heap of events, and the bucket that all workers share."""

    def __init__(self, reserve: Reserve, give_back: GiveBack, seed: int = 0) -> None:
        self.reserve, self.give_back = reserve, give_back
        self.random = random.Random(seed)
        self.now = 0.0
        self.clock_step_us = 0
        self.calls = self.writes = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    @property
    def redis_us(self) -> int:
        return EPOCH_US + int(self.now * 1e6) + self.clock_step_us

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._order), event))

    def after(self, delay: float, event: Callable[[], None]) -> None:
        self.at(self.now + delay, event)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until


@dataclass
class Worker:
    """One worker: a scheduler with a pool of `processes` and a network that takes `latency` seconds each way."""

    world: World
    name: str
    processes: int = 2
    run_time: Callable[[], float] = lambda: 0.001
    latency: Callable[[], float] = lambda: 0.0002
    lateness: Callable[[], float] = lambda: 0.0005
    releases: list[tuple[float, Any]] = field(default_factory=list)
    revoked: set[Any] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.alive = True
        self.inbox: list[Callable[[], None]] = []
        self._stopped_until = 0.0
        #: One connection: what is sent after slots were given back arrives after them.
        self._given_back_at = 0.0
        self.clock = RedisClock()
        self._skew = self.world.random.uniform(-1e5, 1e5)
        self._running: dict[Any, float] = {}
        self._ends: dict[Any, float] = {}
        #: Released and not running: they wait for a process.
        self._waiting: set[Any] = set()
        self._semaphore = LaxBoundedSemaphore(self.processes)
        self.line = SemaphoreLine(self._semaphore, self.monotonic)
        self.line.ready = lambda: self.run_soon(lambda: self.scheduler.pump())
        self.others = 0
        self._alarm = 0
        self.covered = 0
        self.faults = Faults(monotonic=self.monotonic)
        self.scheduler = Scheduler(
            self, self, self._wake, self._cover, self.monotonic, self.world.random.random, self.faults
        )
        self.dismissals = Dismissals(
            lambda: self.scheduler.leaving, self.dismiss, self.scheduler.left, self.faults, self.monotonic
        )

    def monotonic(self) -> float:
        return self.world.now + self._skew

    def run_soon(self, event: Callable[[], None]) -> None:
        """Run in the worker's loop, in order: when it continues, if it is stopped, and never if it is dead."""
        self.inbox.append(event)
        self._drain()

    def stop(self, seconds: float) -> None:
        """Stop the worker's loop, as SIGSTOP does. Its tasks run on."""
        self._stopped_until = max(self._stopped_until, self.world.now + seconds)
        self.world.at(self._stopped_until, self._drain)

    def pause(self, seconds: float) -> None:
        """Stop the worker's machine, and its clock with it."""

        def resume() -> None:
            self._skew -= seconds

        self.world.at(self.world.now + seconds, resume)
        self.stop(seconds)

    def _drain(self) -> None:
        while self.inbox and self.alive and self.world.now >= self._stopped_until:
            self.inbox.pop(0)()

    def _wake(self, at: float) -> None:
        self._alarm += 1
        generation = self._alarm

        def pump() -> None:
            if generation == self._alarm:
                self.scheduler.pump()

        self.world.at(at - self._skew + self.lateness(), partial(self.run_soon, pump))

    def _cover(self, held: int) -> None:
        self.covered = held

    # the pool

    @property
    def free(self) -> int:
        return self.processes - len(self._running) - len(self._waiting)

    has_deck = True

    @property
    def on_deck(self) -> int:
        return sum(not str(request).startswith(OTHER) for request in self._waiting)

    @property
    def started(self) -> list[float]:
        return [at + self._skew for request, at in self._running.items() if not str(request).startswith(OTHER)]

    @property
    def ends(self) -> list[float]:
        """When our running tasks will have ended, which no pool knows."""
        return [at + self._skew for request, at in self._ends.items() if not str(request).startswith(OTHER)]

    def is_gone(self, request: Any) -> bool:
        if request not in self.revoked:
            return False
        self.world.after(0, partial(self.run_soon, self._dismiss))
        return True

    def may_be_gone(self, requests: Iterable[Any]) -> bool:
        return not self.revoked.isdisjoint(requests)

    def _dismiss(self) -> None:
        if (at := self.dismissals.keep_up(self.monotonic())) < float("inf"):
            self.world.at(at - self._skew, partial(self.run_soon, self._dismiss))

    def dismiss(self, request: Any) -> bool:
        return True

    def line_up(self, places: int, wanted: int) -> None:
        self.line.line_up(places, wanted)

    def start(self, request: Any, failed: Callable[[Exception], None]) -> None:
        self.releases.append((self.world.now, request))
        self.line.take()
        self._send(request)

    def has_accepted(self, request: Any) -> bool:
        return request in self._running

    def crowd(self, waiting: int) -> None:
        """Keep the pool busy with tasks that have no limit: so many wait at any time, as a broker sends more."""
        for _ in range(waiting + self.processes):
            self._send_other()

    def _send_other(self) -> None:
        self.others += 1
        self._send(f"{OTHER}{self.others}")

    def _send(self, request: Any) -> None:
        self._waiting.add(request)
        self._semaphore.acquire(self._run, request)

    def _run(self, request: Any) -> None:
        self._waiting.discard(request)
        self._running[request] = self.world.now
        run_time = self.run_time()
        self._ends[request] = self.world.now + run_time
        self.world.after(run_time, partial(self.run_soon, partial(self._end, request, run_time)))

    def _end(self, request: Any, run_time: float) -> None:
        del self._running[request], self._ends[request]
        if str(request).startswith(OTHER):
            self._send_other()
            self._semaphore.release()
            return
        self._semaphore.release()
        self.scheduler.ended(run_time)

    # the limiter

    def reserve(
        self,
        name: str,
        buckets: tuple[Bucket, ...],
        wanted: int,
        reply: Reply,
        costs: Costs | None = None,
        within_s: float = math.inf,
    ) -> None:
        self.world.calls += 1
        sent = self.monotonic()

        def arrive() -> None:
            more = (costs,) if costs else ()
            reservation = self.world.reserve(buckets, wanted, self.name, self.world.redis_us, *more)
            self.world.after(self.latency(), partial(self.run_soon, partial(answer, reservation)))

        def answer(reservation: SlotsInHand) -> None:
            read = self.monotonic()
            if read - sent <= REPLY_TIMEOUT_S:
                self.clock.observe(reservation.now_us, sent, read)
            reply(reservation)

        self.world.at(max(self.world.now + self.latency(), self._given_back_at), arrive)

    @contextmanager
    def together(self) -> Iterator[None]:
        before = self.world.calls
        yield
        self.world.writes += self.world.calls > before

    def give_back(self, buckets: tuple[Bucket, ...], reservation: SlotsInHand) -> None:
        self._given_back_at = self.world.now + self.latency()
        self.world.at(self._given_back_at, lambda: self.world.give_back(buckets, reservation, self.world.redis_us))


def model_world(seed: int = 0) -> World:
    """A world whose buckets are the oracle's."""
    oracles: dict[str, Oracle] = {}

    def reserve(buckets: tuple[Bucket, ...], wanted: int, worker: str, now_us: int) -> SlotsInHand:
        name, limit = buckets[0].name, buckets[0].limit
        oracle = oracles.setdefault(name, Oracle(int(HORIZON_S * 1e6), int(LONGEST_SLEEP_S * 1e6)))
        answer = oracle.reserve(now_us, limit, wanted, worker)
        us, rest = divmod(answer.first, 1)
        counts = answer.count, answer.seq, answer.waiting
        return Reservation(now_us, int(us), int(rest * PS_PER_US), limit.interval_us, limit.interval_ps, *counts)

    def give_back(buckets: tuple[Bucket, ...], reservation: SlotsInHand, now_us: int) -> None:
        oracles[buckets[0].name].give_back(now_us, buckets[0].limit, reservation.left, reservation.seq)

    return World(reserve, give_back, seed)


def fill(worker: Worker, bucket: Lane, requests: range) -> None:
    """Hold a backlog in a worker."""
    for request in requests:
        worker.scheduler.hold(bucket, request)
