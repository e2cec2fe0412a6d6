"""A long run, what happens in it, and what has become of its tasks."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from testbed.cluster import Cluster
from testbed.records import Tail
from testbed.server import DURABLE, RabbitMQ, Redis

from ..chaos.promise import Extra, Limits, worst_window
from ..cluster.events import VISIBILITY_S, nothing_on_its_way
from ..cluster.outcomes import AT_LEAST, ENDS, LOSSES, MEMBERS, UNLIMITED
from .footprint import SPAN, Footprint, least
from .report import Report, Witness

TASKS = "tests.apps.outcomes"
#: Brokers to run it with, as the command line names them.
BROKERS: dict[str, Callable[[], Redis | RabbitMQ]] = {"redis": partial(Redis, options=DURABLE), "rabbitmq": RabbitMQ}
#: All workers take from the first, prefork alone from the others: a task that kills its process would kill the worker.
QUEUES = ("celery", "losses", "crawling")
PROCESSES = 6
#: Starts a minute of each limit at the beginning, of those that end processes, and of one with a long backlog.
RATE, LOSSES_RATE, CRAWLING_RATE = 30, 12, 6
CRAWLING = "crawls"
#: What an operator changes limits to, in starts a minute.
RATES = (15, 30, 60)
#: Not in here: each would write megabytes into the log, every time.
LEFT_OUT = ("fails_at_length",)
#: Prefork alone has this one as well: in Celery 5.7, each greenlet that sends a group or chord leaves open connections.
LEAVES_CONNECTIONS = "arranges"
#: Messages of each task that are under way at least, and in the long backlog.
BACKLOG, LONG_BACKLOG = 8, 300
#: From one task without a limit to the next, in seconds: what they bring about has a limit.
UNLIMITED_S = 5.0
#: From one event to the next, in seconds.
PHASE_S = 12.0
#: An override is in force everywhere so long after its reply, in seconds, as `docs/limits` says.
IN_FORCE_S = 0.25
#: A worker that was told to end may take so long, in seconds, and then is killed, as supervisors do.
GRACE_S = 20
#: Within this time after an event each task must have started again, in seconds: two intervals of the slowest, and what
#: Celery needs to start a worker on a busy machine.
AGAIN_S = 2 * 60 / CRAWLING_RATE + 5
#: In Redis, as docs/how_it_works names them: workers, records and era; and bucket, waiting and history of each task.
KEYS_OF_ALL, KEYS_OF_EACH = 3, 3
#: R, as docs/guarantees computes with it, and more where tasks run in the thread that reads Redis, in seconds.
UNCERTAINTY_S = 0.05


class Soak:
    """Workers under load, and what happens to them.

    Args:
        cluster: of them.
        broker: their broker.
        limiter: where their limits are.
        seed: of what happens.
        log: takes a line now and then.
        include: modules that the workers import, beside the tasks.
    """

    def __init__(
        self,
        cluster: Cluster,
        broker: Redis | RabbitMQ,
        limiter: Redis,
        seed: int,
        log: Callable[[str], object],
        include: Sequence[str] = (),
    ) -> None:
        self._cluster, self._broker, self._limiter, self._log = cluster, broker, limiter, log
        self._include = ",".join((TASKS, *include))
        self._seed, self._chance = seed, random.Random(seed)
        self._tail = Tail(cluster.directory / "records")
        self._names = [name for name in (*ENDS, *LOSSES) if name not in LEFT_OUT]
        #: By task: ids that were sent, and instants of releases.
        self._sent: defaultdict[str, set[str]] = defaultdict(set)
        self._releases: defaultdict[str, list[float]] = defaultdict(list)
        self._last: defaultdict[str, float] = defaultdict(lambda: float("-inf"))
        self._fed_at: defaultdict[str, float] = defaultdict(lambda: float("-inf"))
        self._started: set[str] = set()
        #: By name and id: how often it has started. What replaces a task has its id.
        self._runs: Counter[tuple[str, str]] = Counter()
        self._starts: Counter[str] = Counter()
        self._tasks: defaultdict[str, list[float]] = defaultdict(list)
        #: By id of a task: the worker that has handed it to its pool, and when.
        self._released: dict[str, tuple[str, float]] = {}
        #: By id: the workers that have received it.
        self._received: defaultdict[str, set[str]] = defaultdict(set)
        self._revoked: set[str] = set()
        self._ended: dict[str, float] = {}
        self._crashed: set[str] = set()
        self._changes: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self._events: Counter[str] = Counter()
        self._stuck: list[str] = []
        self._longest_s = 0.0
        self._footprints: defaultdict[str, list[Footprint]] = defaultdict(list)
        self._witnesses: dict[str, str] = {}
        self._guest = ""
        #: Whether nothing may be sent, because a worker that takes no more is about to part from its broker.
        self._is_parting = False

    def run(self, seconds: float) -> Report:
        """Let events happen, wait for what is left, and judge."""
        for pool in ("prefork", "threads", "gevent"):
            if importlib.util.find_spec(pool) or pool != "gevent":
                self._witnesses[self._start(pool)] = pool
        self._guest = self._start("prefork")
        self._sent[CRAWLING].update(self._cluster.send(CRAWLING, LONG_BACKLOG, queue=QUEUES[2]))
        begin = time.monotonic()
        for name in self._names + list(MEMBERS) + [CRAWLING]:
            self._changes[name].append((begin, self._declared(name) / 60))
        self._rest(begin + 5)
        while (now := time.monotonic()) < begin + seconds:
            event = self._chance.choice([self._change, self._revoke, *self._endings])
            self._happen(event, now - begin)
            self._rest(min(now + PHASE_S, begin + seconds))
        end = time.monotonic()
        complaints = {name: self._complaints(name) for name in self._witnesses}
        keys = int(self._limiter.client().dbsize())
        self._drain()
        return self._judge(begin, end, complaints, keys)

    @property
    def _endings(self) -> list[Callable[[], str]]:
        return [self._end_warm, self._end_cold, self._kill]

    def _start(self, pool: str) -> str:
        queues = QUEUES if pool == "prefork" else QUEUES[:1]
        name = self._cluster.launch(
            pool=pool, concurrency=PROCESSES, options=["-I", self._include, "-Q", ",".join(queues)]
        )
        self._cluster.wait(lambda: self._is_ready(name), 60, f"{name} did not start")
        return name

    def _is_ready(self, name: str) -> bool:
        self._look()
        self._feed()
        return name in self._tasks

    def _has_ended(self, name: str) -> bool:
        self._look()
        if not self._is_parting:
            self._feed()
        return self._cluster.workers[name].poll() is not None

    def _declared(self, name: str) -> int:
        return CRAWLING_RATE if name == CRAWLING else LOSSES_RATE if name in LOSSES else RATE

    # the load

    def _look(self) -> None:
        """Read what the workers have written down since."""
        self._measure()
        for record in sorted(self._tail.lines()):
            if record.kind == "ready":
                self._tasks[record.worker]  # there is one
            elif record.kind == "start":
                self._started.add(record.task_id)
                self._runs[record.task, record.task_id] += 1
                self._starts[record.task] += 1
                self._last[record.task] = record.instant
            elif record.kind == "received":
                self._received[record.task_id].add(record.worker)
            elif record.kind == "release":
                self._releases[record.task].append(record.instant)
                self._tasks[record.worker].append(record.instant)
                self._released[record.task_id] = record.worker, record.instant

    def _waiting(self, name: str) -> int:
        return len(self._sent[name] - self._started - self._revoked)

    def _feed(self, more: int = 0) -> None:
        """Keep messages of each task under way."""
        for name in self._names:
            if name in UNLIMITED:
                more_at = self._fed_at[name] + UNLIMITED_S
                if time.monotonic() >= more_at:
                    self._fed_at[name] = time.monotonic()
                    self._send(name, 1)
                continue
            missing = BACKLOG - self._waiting(name) + more
            if missing > BACKLOG // 3:
                self._send(name, missing)

    def _send(self, name: str, count: int) -> None:
        queue = QUEUES[1] if name in (*LOSSES, LEAVES_CONNECTIONS) else QUEUES[0]
        self._sent[name].update(self._cluster.send(name, count, queue=queue))

    def _rest(self, until: float) -> None:
        while time.monotonic() < until:
            self._look()
            self._feed()
            time.sleep(0.2)

    def _measure(self) -> None:
        """Look at the witnesses, once a second."""
        now = time.monotonic()
        for name in self._witnesses:
            if self._cluster.workers[name].poll() is not None:
                self._crashed.add(name)
            elif not self._footprints[name] or now - self._footprints[name][-1].at >= 1:
                self._footprints[name].append(Footprint.read(self._cluster.workers[name].pid, now))

    # what happens

    def _happen(self, event: Callable[[], str], at_s: float) -> None:
        """Let an event happen, and see that each task starts again."""
        what = event()
        self._events[what.partition(" ")[0]] += 1
        over = time.monotonic()
        waiting: list[str] = list(self._names)
        while waiting and time.monotonic() < over + AGAIN_S:
            self._rest(time.monotonic() + 0.2)
            waiting = [name for name in (*self._names, CRAWLING) if self._last[name] < over and self._waiting(name)]
        self._stuck += [f"{name} after {what} at {at_s:.0f} s" for name in waiting]
        took_s = time.monotonic() - over
        self._longest_s = max(self._longest_s, took_s)
        self._log(f"{at_s:7.1f} s  {what}: all start again within {took_s:.1f} s, {sum(self._starts.values())} starts")

    def _change(self) -> str:
        """Another limit. Until a worker has confirmed it either may be in force: the faster one counts."""
        name = self._chance.choice([name for name in ENDS if name not in (*LEFT_OUT, *UNLIMITED)])
        rate, now = self._chance.choice(RATES), time.monotonic()
        before = self._changes[name][-1][1]
        self._changes[name].append((now, max(before, rate / 60)))
        destination = [f"{next(iter(self._witnesses))}@lab"]
        replies = self._cluster.app.control.rate_limit(
            name, f"{rate}/m", destination=destination, reply=True, timeout=5, limit=1
        )
        if any("ok" in it for reply in replies for it in reply.values()):
            self._changes[name].append((time.monotonic() + IN_FORCE_S, rate / 60))
        else:
            self._stuck.append(f"no reply to rate_limit {name}")
        return f"limit of {name} {rate}/m"

    def _revoke(self) -> str:
        """Tasks that wait, wherever they do."""
        name = self._chance.choice([name for name in self._names if self._waiting(name) > 3])
        them = self._chance.sample(sorted(self._sent[name] - self._started), 3)
        self._revoked.update(them)
        self._cluster.app.control.revoke(them)
        return f"revoked three {name}"

    def _end_warm(self) -> str:
        return self._end("TERM", lambda: self._cluster.workers[self._guest].send_signal(signal.SIGTERM))

    def _end_cold(self) -> str:
        return self._end("QUIT", lambda: self._cluster.workers[self._guest].send_signal(signal.SIGQUIT))

    def _kill(self) -> str:
        return self._end("KILL", lambda: self._cluster.kill(self._guest))

    def _end(self, how: str, end: Callable[[], None]) -> str:
        """End the guest, and have another one."""
        guest = self._guest
        if self._cluster.workers[guest].poll() is not None:
            self._crashed.add(guest)
        self._cluster.ended.add(guest)
        # A worker that ends takes messages to the last, and what it does not read any more is lost, as on stock Celery.
        self._is_parting = True
        with self._nothing_on_its_way():
            end()
            self._ended[guest] = time.monotonic()
            with contextlib.suppress(TimeoutError):
                self._cluster.wait(lambda: self._has_ended(guest), GRACE_S)
            self._cluster.kill(guest)
        self._is_parting = False
        self._feed(more=3)  # what it had, Redis redelivers only after the visibility timeout
        self._guest = self._start("prefork")
        return f"{how} {guest}"

    def _nothing_on_its_way(self) -> contextlib.AbstractContextManager[None]:
        if isinstance(self._broker, Redis):
            return nothing_on_its_way(self._broker.client(), *QUEUES)
        return contextlib.nullcontext()  # RabbitMQ redelivers what was not acknowledged

    # afterwards

    def _drain(self) -> None:
        """Have all start that is left."""
        for name in (*self._names, *MEMBERS, CRAWLING):
            if name not in UNLIMITED:
                self._cluster.app.control.rate_limit(name, "600/m")

        def is_done() -> bool:
            self._look()
            return not any(map(self._waiting, self._sent))

        with contextlib.suppress(TimeoutError):  # what did not start is counted
            self._cluster.wait(is_done, 60 + 3 * VISIBILITY_S)

    def _complaints(self, name: str) -> tuple[str, ...]:
        """Warnings of the extension's, but for one that the long backlog is worth."""
        lines = (line for line in self._cluster.log(name).splitlines() if "global-rate:" in line)
        return tuple(line for line in lines if "global_rate_max_held" not in line)

    def _judge(self, begin: float, end: float, complaints: dict[str, tuple[str, ...]], keys: int) -> Report:
        limited = [name for name in (*self._names, CRAWLING) if name not in UNLIMITED]
        worst, used, slots, missed = float("-inf"), 0, 0.0, (0.0, "")
        for name in limited:
            limits = Limits(sorted(self._changes[name]))
            grace_s = min(1.0, max(0.025, 0.1 / min(limits.rates)))
            # The slot after a change is an interval after the one before, an interval of the new limit.
            extras = [Extra(instant, instant, 1) for instant in limits.instants[1:]]
            releases = [instant for instant in self._releases[name] if instant < end]
            worst = max(worst, worst_window(releases, limits, extras, grace_s + UNCERTAINTY_S)[0])
            first = next((instant for instant in releases), end)
            used += sum(first < instant for instant in releases)
            slots += limits.slots(end) - limits.slots(first)
            due = [limits.slots(instant) for instant in (*releases, end)]
            missed = max(missed, *((later - earlier - 1, name) for earlier, later in zip(due, due[1:])))
        missing = set().union(*self._sent.values()) - self._started - self._revoked
        doubled = [task_id for name in self._names for task_id in self._sent[name] if self._is_doubled(name, task_id)]
        ended = self._ended.keys()
        needless = [task_id for task_id in doubled if not self._received[task_id] & ended]
        struck = {task_id for task_id in missing if self._is_struck(task_id)}
        middle, span_s = (begin + end) / 2, (end - begin) * SPAN
        witnesses = []
        for name, pool in self._witnesses.items():
            its = self._footprints[name]
            at = (begin + span_s, middle, end)
            first_mb, middle_mb, last_mb = (least(its, instant, span_s) for instant in at)
            tasks = sum(middle <= instant < end for instant in self._tasks[name])
            witnesses.append(Witness(pool, (first_mb, middle_mb, last_mb), tasks, complaints[name]))
        return Report(
            seed=self._seed,
            seconds=end - begin,
            tasks={name: (len(self._sent[name]), self._starts[name]) for name in (*self._names, *MEMBERS, CRAWLING)},
            events=dict(self._events),
            stuck=tuple(self._stuck),
            longest_s=self._longest_s,
            worst=worst,
            use=used / slots,
            missed=missed,
            doubled=len(doubled),
            needless=tuple(map(self._describe, needless)),
            lost=tuple(self._describe(task_id) for task_id in missing - struck),
            struck=len(struck),
            crashed=len(self._crashed),
            keys=keys,
            most_keys=KEYS_OF_ALL + KEYS_OF_EACH * (len(limited) + len(MEMBERS)),
            witnesses=tuple(witnesses),
        )

    def _describe(self, task_id: str) -> str:
        name = next(name for name, them in self._sent.items() if task_id in them)
        return f"{name} {task_id}, received by {sorted(self._received[task_id])}"

    def _is_doubled(self, name: str, task_id: str) -> bool:
        """Whether a task started more often than it does by itself, and than stock Celery has it."""
        return name not in AT_LEAST and self._runs[name, task_id] > {**ENDS, **LOSSES}[name].starts

    def _is_struck(self, task_id: str) -> bool:
        """Whether a worker had handed it to its pool when it was ended: acknowledged before its first line, or not."""
        worker, released = self._released.get(task_id, ("", 0.0))
        return worker in self._ended and self._ended[worker] - released < 1


def run(
    seed: int,
    seconds: float,
    log: Callable[[str], object],
    extension: bool = True,
    include: Sequence[str] = (),
    broker_kind: str = "redis",
) -> Report:
    """Start everything, let events happen for so many seconds, and end everything.

    Args:
        seed: of the events.
        seconds: how long.
        log: takes a line for each event.
        extension: False for stock Celery, with its own limits: what it keeps of all this.
        include: modules that the workers import, beside the tasks, such as one that plants a fault.
        broker_kind: one of `BROKERS`.

    Returns:
        The report.

    Raises:
        RuntimeError: there is no Redis, or no RabbitMQ, to run.
    """
    annotations = {name: {"rate_limit": f"{LOSSES_RATE}/m"} for name in LOSSES if name not in UNLIMITED}
    annotations[CRAWLING] = {"rate_limit": f"{CRAWLING_RATE}/m"}
    with contextlib.ExitStack() as stack:
        broker, limiter = BROKERS[broker_kind](), Redis()
        for server in (broker, limiter):
            stack.callback(server.close)
            server.start()
        conf: dict[str, Any] = {
            "result_backend": f"{limiter.url}/1",
            "result_expires": 60,
            "task_annotations": annotations,
        }
        if isinstance(broker, Redis):
            conf["broker_transport_options"] = {"visibility_timeout": VISIBILITY_S, "unacked_mutex_expire": 1}
        cluster = stack.enter_context(
            Cluster(broker.url, f"{limiter.url}/0", f"{RATE}/m", extension, conf=conf, lifelines=True)
        )
        if isinstance(broker, Redis):
            stack.enter_context(cluster.sweeping(VISIBILITY_S / 10))
        return Soak(cluster, broker, limiter, seed, log, include).run(seconds)
