"""One run: servers of its own, four workers, a backlog of tasks with a limit, and others without one behind it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from celery import Celery

from testbed.server import Redis, root
from testbed.windows import percentile

from .environments import Peer, python

RATE = 100
WORKERS = 4
#: How long a limited task runs, in seconds.
RUN_S = 0.005
#: A second queue of the same workers.
BESIDE = "beside"
#: Between two tasks without a limit, in seconds.
FREE_EVERY_S = 0.25
#: How long tasks that are left may take, once a backlog is gone that the limit allows in that time, in seconds.
DRAIN_S = 10.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figures:
    """What was seen.

    Attributes:
        title, package: of what limits the rate.
        share: limited starts of what the limit allows, from the begin of the watch to its end.
        most: limited starts in the fullest second of the whole run.
        broker_calls, limiter_calls: commands to either Redis for each limited start.
        cpu_ms: of all processes of all workers, for each limited start.
        retries: for each limited start.
        lost: tasks that have neither run nor are left anywhere, after the workers have ended.
        behind_s, beside_s: how long a task without a limit waited, in the queue of the backlog and in another one of
            the same workers: the median of those that had started when the watch ended; None if it had not.
        free_left: how many of these had not.
    """

    title: str
    package: str
    share: float
    most: int
    broker_calls: float
    limiter_calls: float
    cpu_ms: float
    retries: float
    lost: int
    behind_s: float | None
    beside_s: float | None
    free_left: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Lab:
    """Servers, workers, and what their processes have written down.

    Args:
        peer: what limits the rate.
        folder: for records and logs.
    """

    def __init__(self, peer: Peer, folder: Path) -> None:
        self.peer = peer
        self.records, self.logs = folder / "records", folder / "logs"
        self.records.mkdir()
        self.logs.mkdir()
        self.broker, self.limiter = Redis(), Redis()
        self.workers: list[subprocess.Popen[bytes]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Servers and workers; nothing of them is left."""
        try:
            self.broker.start()
            self.limiter.start()
            self._start_workers()
            yield
        finally:
            for worker in self.workers:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
            self.broker.close()
            self.limiter.close()

    def _start_workers(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{root() / 'benchmarks' / 'peers' / 'apps'}:{root()}",
            "PEERS_BROKER": f"{self.broker.url}/0",
            "PEERS_LIMITER": f"{self.limiter.url}/0",
            "PEERS_RECORDS": str(self.records),
            "PEERS_RUN_S": str(RUN_S),
        }
        command = [python(self.peer), "-m", "celery", "-A", self.peer.app, "worker", "-l", "INFO", "-c", "2"]
        logs = [self.logs / f"w{number}" for number in range(WORKERS)]
        for log in logs:
            options = ["-n", f"{log.name}@lab", "-Q", f"celery,{BESIDE}", "--without-mingle", "--without-gossip"]
            with log.open("wb") as out:
                self.workers.append(
                    subprocess.Popen(
                        [*command, *options], env=environment, stdout=out, stderr=out, start_new_session=True
                    )
                )
        deadline = time.monotonic() + 60
        while not all(" ready." in log.read_text() for log in logs):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.peer.title}: no workers\n{logs[0].read_text()[-2000:]}")
            time.sleep(0.05)

    def end_workers(self) -> None:
        """A warm shutdown; one that takes longer than tasks that are left may is cut short."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(2 * DRAIN_S)

    def read(self) -> list[tuple[float, str, int]]:
        """All records: monotonic seconds, kind, number of the task."""
        lines = [line.split() for path in self.records.iterdir() for line in path.read_text().splitlines()]
        return sorted((float(at), kind, int(number)) for at, kind, number in (it for it in lines if len(it) == 3))

    def calls(self) -> tuple[int, int]:
        """Commands to the broker and to the limiter so far."""
        servers = self.broker, self.limiter
        broker, limiter = (
            sum(int(it["calls"]) for it in server.client().info("commandstats").values()) for server in servers
        )
        return broker, limiter

    def cpu_s(self) -> float:
        """CPU time of all processes of the workers so far, in seconds."""
        groups = {worker.pid for worker in self.workers}
        total = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, IndexError):
                fields = path.read_text().rpartition(") ")[2].split()
                if int(fields[2]) in groups:
                    total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def left(self) -> int:
        """Messages of tasks that are still in the broker: in queues, or taken and not acknowledged."""
        client = self.broker.client()
        found = client.llen("celery") + client.llen(BESIDE) + client.hlen("unacked")
        return int(found)


@dataclass(frozen=True)
class Moment:
    """Totals of a lab at an instant (monotonic seconds)."""

    at: float
    calls: tuple[int, int]
    cpu_s: float

    @classmethod
    def of(cls, lab: Lab) -> Moment:
        return cls(time.monotonic(), lab.calls(), lab.cpu_s())


def run(peer: Peer, seconds: float | None = None) -> Figures:
    """Watch one of them under load.

    Args:
        peer: what limits the rate.
        seconds: for how long; None for as long as it needs.
    """
    measured_s = seconds or peer.measured_s
    limited = int(1.4 * RATE * (measured_s + peer.warm_up_s))
    with tempfile.TemporaryDirectory(prefix="global-rate-peers-") as folder:
        lab = Lab(peer, Path(folder))
        with lab.running(), Celery("client", broker=f"{lab.broker.url}/0", set_as_current=False) as client:
            first = Moment.of(lab)
            if peer.refill:
                client.send_task(*peer.refill[:1], kwargs=peer.refill[1])
            for number in range(limited):
                client.send_task("lab.limited", (number,))
            time.sleep(peer.warm_up_s)
            begin = Moment.of(lab)
            sent = send_free(client, begin.at + measured_s)
            end, seen = Moment.of(lab), lab.read()
            drain(lab, limited)
            lab.end_workers()
            left, records = lab.left(), lab.read()
    starts = [at for at, kind, _ in seen if kind == "limited"]
    if len(starts) == limited:  # the limit did not hold: of a backlog that is gone, all counts
        begin, end = replace(first, at=starts[0]), replace(end, at=starts[-1])
    ran = {(kind, number) for _, kind, number in records if kind != "retry"}
    lost = max(0, limited + len(sent) - len(ran) - left)
    return figures(peer, begin, end, seen, sent, fullest_second(instants(records, "limited")), lost)


def figures(
    peer: Peer,
    begin: Moment,
    end: Moment,
    records: Sequence[tuple[float, str, int]],
    sent: Sequence[float],
    most: int,
    lost: int,
) -> Figures:
    """What happened between two moments.

    Args:
        peer: what limits the rate.
        begin: the first of them.
        end: the other one.
        records: of the time until then.
        sent: when each task without a limit was sent, monotonic seconds.
        most: limited starts in the fullest second.
        lost: tasks that are.
    """
    starts, retries = (
        [at for at in instants(records, kind) if begin.at <= at <= end.at] for kind in ("limited", "retry")
    )
    freed = {number: at for at, kind, number in records if kind == "free"}
    waits = [[freed[number] - sent[number] for number in places if number in freed] for places in halves(len(sent))]
    behind_s, beside_s = (percentile(it, 0.5) if it else None for it in waits)
    count = max(1, len(starts))
    return Figures(
        title=peer.title,
        package=peer.package,
        share=len(starts) / (RATE * (end.at - begin.at)),
        most=most,
        broker_calls=(end.calls[0] - begin.calls[0]) / count,
        limiter_calls=(end.calls[1] - begin.calls[1]) / count,
        cpu_ms=1000 * (end.cpu_s - begin.cpu_s) / count,
        retries=len(retries) / count,
        lost=lost,
        behind_s=behind_s,
        beside_s=beside_s,
        free_left=(len(sent) // 2 - len(waits[0]), len(sent) - len(sent) // 2 - len(waits[1])),
    )


def instants(records: Sequence[tuple[float, str, int]], kind: str) -> list[float]:
    """When what is of a kind happened."""
    return [at for at, it, _ in records if it == kind]


def halves(count: int) -> tuple[range, range]:
    """The tasks without a limit behind the backlog, and those beside it."""
    return range(1, count, 2), range(0, count, 2)


def send_free(client: Celery, until: float) -> list[float]:
    """Send tasks without a limit until an instant, to either queue in turn; when each was sent."""
    sent: list[float] = []
    while (now := time.monotonic()) < until:
        client.send_task("lab.free", (len(sent),), queue="celery" if len(sent) % 2 else BESIDE)
        sent.append(now)
        time.sleep(max(0.0, min(FREE_EVERY_S, until - time.monotonic())))
    return sent


def drain(lab: Lab, limited: int) -> None:
    """Let the rest run that the limit has left, for some time."""
    deadline = time.monotonic() + DRAIN_S
    while time.monotonic() < deadline:
        if sum(kind == "limited" for _, kind, _ in lab.read()) >= limited:
            return
        time.sleep(0.5)


def fullest_second(instants: Sequence[float]) -> int:
    """The most of them in any second."""
    most, within = 0, deque[float]()
    for instant in sorted(instants):
        within.append(instant)
        while within[0] <= instant - 1:
            within.popleft()
        most = max(most, len(within))
    return most
