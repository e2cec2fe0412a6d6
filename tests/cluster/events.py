"""Workers that come and go, and what may happen to them meanwhile."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from kombu.exceptions import KombuError
from redis.exceptions import RedisError, ResponseError

from testbed.cluster import Cluster
from testbed.proxy import Proxy
from testbed.sentinels import Sentinels
from testbed.server import DURABLE, Redis

#: How long a worker in the place `SOFT` lets its tasks run on after QUIT, in seconds (Celery 5.5 and later).
SOFT_S = 1
SOFT = 0
#: In the pool of a worker at its start.
PROCESSES = 2
#: Longer than a task that is not held may be with a worker, in seconds.
VISIBILITY_S = 15
#: For how long a queue that was cancelled stays so, in seconds.
CANCELLED_S = 0.3
#: How long a worker may take to part, in seconds: one in the place `SOFT` waits before.
PARTED_S = SOFT_S + 1
#: A message is on its way to a worker for less than this, in seconds.
ON_ITS_WAY_S = 0.5
#: A worker that was told to end and is still there after this time is killed, as supervisors do; in seconds.
GRACE_S = 15


@dataclass(frozen=True)
class Event:
    """What may happen.

    Attributes:
        happen: brings it about, and returns when it is over.
        parts: it lets a worker part from its broker.
        strikes_all: it strikes all workers, and not only the one in the place that is given to `happen`.
        mend: makes whole what still works, but could not stand the next event.
    """

    happen: Callable[[Fleet, Place], object]
    parts: bool = False
    strikes_all: bool = False
    mend: Callable[[Fleet], object] = lambda fleet: None


@dataclass(frozen=True)
class Strike:
    """What has happened.

    Attributes:
        event: its name.
        parts: as `Event.parts`.
        workers: those it has struck.
        at: when it began, monotonic seconds.
        over: when `happen` was done.
        until: when the workers that part had parted, and all was whole.
    """

    event: str
    parts: bool
    workers: list[str]
    at: float
    over: float
    until: float


@contextlib.contextmanager
def nothing_on_its_way(broker: redis.Redis, *queues: str) -> Iterator[None]:
    """Keep messages from being taken meanwhile.

    kombu takes a message from its list first and notes down afterwards that it has it. What is between the two when
    the broker, the connection or the worker goes is lost, by Celery's own doing.

    Args:
        broker: its Redis.
        queues: all that workers take messages from; `celery` if there are none.
    """
    names = queues or ("celery",)
    for queue in names:
        with contextlib.suppress(ResponseError):  # there is none
            broker.rename(queue, f"aside.{queue}")
    time.sleep(ON_ITS_WAY_S)
    yield
    with broker.pipeline() as pipe:
        for queue in names:
            for _ in range(broker.llen(f"aside.{queue}")):
                pipe.lmove(f"aside.{queue}", queue, "RIGHT", "LEFT")
        pipe.execute()


class Place:
    """Where one worker at a time lives: what it has between itself and the broker."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.worker = ""
        self.processes = PROCESSES
        self.is_ending_since = float("inf")
        self.consumes_again_at = float("inf")


class Fleet:
    """A number of workers, each of which is replaced as soon as it has ended.

    Args:
        cluster: with `lifelines`.
        broker: its broker.
        limiter: what has its limits.
        proxies: one for each worker, to the broker.
        queues: that workers take tasks from.
        include: modules that they load.
    """

    def __init__(
        self,
        cluster: Cluster,
        broker: Redis,
        limiter: Redis | Sentinels,
        proxies: list[Proxy],
        queues: Sequence[str] = ("celery",),
        include: Sequence[str] = (),
    ) -> None:
        self.cluster, self.broker, self.limiter = cluster, broker, limiter
        self._queues = queues
        self._options = ["-Q", ",".join(queues), *(("-I", ",".join(include)) if include else ())]
        self.places = [Place(proxy) for proxy in proxies]
        self.strikes: list[Strike] = []
        #: Workers that have ended by themselves.
        self.crashed: list[str] = []
        #: Those that did not end in time.
        self.killed: list[str] = []
        for place in self.places:
            self._launch(place)
        self.settle()

    def _launch(self, place: Place) -> None:
        soft = {"worker_soft_shutdown_timeout": SOFT_S} if place is self.places[SOFT] else {}
        place.worker = self.cluster.launch(
            concurrency=PROCESSES,
            options=self._options,
            broker=f"redis://127.0.0.1:{place.proxy.port}/0",
            conf=soft,
        )
        place.processes = PROCESSES
        place.is_ending_since = place.consumes_again_at = float("inf")

    def tend(self) -> None:
        """Replace workers that have ended, and have the others take tasks again that were told not to."""
        now = time.monotonic()
        for place in self.places:
            if self.cluster.workers[place.worker].poll() is not None:
                if place.is_ending_since == float("inf"):
                    self.crashed.append(place.worker)
                    self.cluster.ended.add(place.worker)
                self._launch(place)
            elif place.consumes_again_at <= now and self.is_up(place):
                if self.ask("add_consumer", place, queue="celery"):
                    place.consumes_again_at = float("inf")
            elif now - place.is_ending_since > GRACE_S:
                self.killed.append(place.worker)
                self.cluster.kill(place.worker)
                self.strikes.append(Strike("KILL", True, [place.worker], now, time.monotonic(), time.monotonic()))

    def is_connected(self, place: Place) -> bool:
        """Whether its worker takes tasks and hears commands."""
        if self.cluster.workers[place.worker].poll() is not None:
            return False
        lifeline = sorted(self.cluster.records("connected") + self.cluster.records("parted"))
        return [record.kind for record in lifeline if record.worker == place.worker][-1:] == ["connected"]

    def is_up(self, place: Place) -> bool:
        """Whether it does, and has not been told to end."""
        return place.is_ending_since == float("inf") and self.is_connected(place)

    def settle(self, timeout: float = 60) -> None:
        """Wait until every place has a worker that hears commands and takes tasks."""

        def is_settled() -> bool:
            self.tend()
            still = (place.is_ending_since == place.consumes_again_at == float("inf") for place in self.places)
            return all(still) and all(map(self.is_up, self.places)) and self.ask("ping", *self.places)

        self.cluster.wait(is_settled, timeout, "not all workers are up")

    def ask(self, command: str, *places: Place, **arguments: Any) -> bool:
        """Have these workers obey a command; whether all of them have, and have said so within a second."""
        names = [f"{place.worker}@lab" for place in places]
        with contextlib.suppress(OSError, KombuError, RedisError):
            replies = self.cluster.app.control.broadcast(
                command, arguments, names, reply=True, timeout=1, limit=len(names)
            )
            return len(replies) == len(names) and all("ok" in it for reply in replies for it in reply.values())
        return False

    def strike(self, name: str, place: Place, event: Event | None = None) -> None:
        """Let an event happen to the worker in a place: one of `EVENTS`, or another one."""
        event = event or EVENTS[name]
        struck = [it for it in self.places if self.is_connected(it)] if event.strikes_all else [place]
        workers = [its.worker for its in struck]
        with contextlib.ExitStack() as stack:
            if event.parts:
                stack.enter_context(nothing_on_its_way(self.broker.client(), *self._queues))
            at = time.monotonic()
            event.happen(self, place)
            over = time.monotonic()
            while event.parts and any(map(self.is_connected, struck)) and time.monotonic() < at + PARTED_S:
                time.sleep(0.02)
            while event.parts and any(map(self._is_ending, self.places)) and time.monotonic() < at + GRACE_S:
                time.sleep(0.02)
        event.mend(self)
        self.strikes.append(Strike(name, event.parts, workers, at, over, time.monotonic()))

    def _is_ending(self, place: Place) -> bool:
        """Whether its worker gives back what it holds, or may still take a message that it will not read."""
        return place.is_ending_since < float("inf") and self.cluster.workers[place.worker].poll() is None

    def storm(self, seed: int, seconds: int) -> None:
        """Let a random event happen every second, to a worker that is up."""
        chance = random.Random(seed)
        begin = time.monotonic()
        for second in range(seconds):
            while time.monotonic() < begin + second:
                self.tend()
                time.sleep(0.05)
            event = chance.choice(list(EVENTS))
            for place in chance.sample(self.places, len(self.places)):
                if self.is_up(place):
                    self.strike(event, place)
                    break

    # events

    def end(self, place: Place, end: Callable[[], object]) -> None:
        self.cluster.ended.add(place.worker)
        place.is_ending_since = time.monotonic()
        end()

    def _signal(self, place: Place, signum: signal.Signals) -> None:
        self.end(place, lambda: self.cluster.workers[place.worker].send_signal(signum))

    def _shut_down(self, place: Place) -> None:
        self.end(place, lambda: self.cluster.app.control.shutdown(destination=[f"{place.worker}@lab"]))

    def _resize(self, place: Place, more: int) -> None:
        if place.processes + more:  # Celery would leave none
            place.processes += more
            self.ask("pool_grow" if more > 0 else "pool_shrink", place, n=1)

    def _restart_limiter(self, place: Place) -> None:
        assert isinstance(self.limiter, Redis)
        self.limiter.restart()

    def _cancel_consumer(self, place: Place) -> None:
        self.ask("cancel_consumer", place, queue="celery")
        place.consumes_again_at = time.monotonic() + CANCELLED_S


EVENTS = {
    "connection cut": Event(lambda fleet, place: place.proxy.cut(), parts=True),
    "broker restarted": Event(lambda fleet, place: fleet.broker.restart(), parts=True, strikes_all=True),
    "limiter restarted": Event(Fleet._restart_limiter, strikes_all=True),
    "TERM": Event(lambda fleet, place: fleet._signal(place, signal.SIGTERM), parts=True),
    "QUIT": Event(lambda fleet, place: fleet._signal(place, signal.SIGQUIT), parts=True),
    "control shutdown": Event(Fleet._shut_down, parts=True),
    "pool_restart": Event(lambda fleet, place: fleet.ask("pool_restart", place)),
    "cancel_consumer": Event(Fleet._cancel_consumer),
    "pool_grow": Event(lambda fleet, place: fleet._resize(place, 1)),
    "pool_shrink": Event(lambda fleet, place: fleet._resize(place, -1)),
}


@contextlib.contextmanager
def fleet_of(
    count: int,
    rate: str,
    extension: bool = True,
    visibility_s: float = VISIBILITY_S,
    sentinels: Sentinels | None = None,
    conf: Mapping[str, Any] | None = None,
    queues: Sequence[str] = ("celery",),
    include: Sequence[str] = (),
) -> Iterator[Fleet]:
    """Workers with a Redis for their broker, which keeps what it has confirmed, and another one for their limits.

    That one may be behind `sentinels`, which run already. Workers take tasks from these queues, and load these modules.
    """
    broker, limiter = Redis(options=DURABLE), sentinels or Redis()
    # kombu delivers a message twice if a sweep takes longer than its mutex lives
    options = {"visibility_timeout": visibility_s, "unacked_mutex_expire": max(1, int(visibility_s / 5))}
    with contextlib.ExitStack() as stack:
        for server in (broker, limiter):
            if server is not sentinels:
                stack.callback(server.close)
                server.start()
        proxies = [stack.enter_context(Proxy(broker.port)) for _ in range(count)]
        cluster = stack.enter_context(
            Cluster(
                f"{broker.url}/0",
                limiter.url,
                rate,
                extension,
                conf={"broker_transport_options": options, "worker_pool_restarts": True, **(conf or {})},
                lifelines=True,
            )
        )
        stack.enter_context(cluster.sweeping(visibility_s / 10))
        yield Fleet(cluster, broker, limiter, proxies, queues, include)
