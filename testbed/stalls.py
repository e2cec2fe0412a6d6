"""When this machine let processes of a run stand still, and what that may have cost a limit at the most."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from subprocess import Popen

from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.timing import HORIZON_S

from .cluster import Cluster
from .meanwhile import meanwhile
from .server import ExternalRedis, Redis

EVERY_S = 0.005
#: Waits that are this close to each other are one, in seconds.
APART_S = 0.005
NS_PER_S = 1e9

#: Begin and end, monotonic seconds.
Span = tuple[float, float]


class Stalls:
    """What the kernel says of some processes: when they were ready to run, and others had the CPUs.

    It counts that for the first thread of each, in ``/proc/PID/schedstat``. A process that is busy itself, or waits for
    anything but a CPU, does not stall. Where the kernel does not count, nothing is seen, and nothing is excused.

    Attributes:
        waits: when each process waited for a CPU, by its id.
    """

    def __init__(self) -> None:
        self.waits: dict[int, list[Span]] = {}
        self._waited_s: dict[int, float] = {}

    def look(self, pids: Iterable[int]) -> None:
        """Note how much longer each of these has waited since the last look."""
        for pid in pids:
            with contextlib.suppress(OSError, ValueError, IndexError):
                waited_s = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / NS_PER_S
                more_s = waited_s - self._waited_s.setdefault(pid, waited_s)
                if more_s:
                    now = time.monotonic()
                    self.waits.setdefault(pid, []).append((now - more_s, now))
                self._waited_s[pid] = waited_s

    def spans(self, shortest_s: float) -> list[Span]:
        """The stalls that took so long, those of several processes at the same time as one."""
        found = [
            (row[0][0], row[-1][1])
            for waits in self.waits.values()
            for row in _rows(waits, APART_S)
            if sum(end - begin for begin, end in row) >= shortest_s
        ]
        return [(row[0][0], max(end for _, end in row)) for row in _rows(sorted(found), 0.0)]

    def most(self, limit: Limit, begin: float, end: float, missed: int, cost: int = 1) -> float:
        """The share of a smooth limit that its tasks may have lost to stalls, at the most.

        A stall takes slots if it is longer than one can be used, and the limit, which has no burst, makes up for none.
        A worker that stalls has slots in hand whose first unit is up to H ahead; if all stall, nobody reserves others
        meanwhile, as long as that takes; and the last of these slots has up to c units. So a stall of s takes
        ``max(s, H) + c T`` of the limit. One of less than H takes only slots that were in hand, and workers count those
        as missed: no more stalls than that are excused, beside the longer ones.

        Args:
            limit: the limit.
            begin: of the watch, monotonic seconds.
            end: likewise.
            missed: slots that workers have missed, by what they say.
            cost: c, the most units of a start.
        """
        last_s = cost * limit.interval_s
        lengths_s = sorted(
            (
                to - since
                for since, to in self.spans(limit.usable_s)
                if to >= begin - HORIZON_S - last_s and since <= end
            ),
            reverse=True,
        )
        taken_s = [
            max(length_s, HORIZON_S) + last_s
            for place, length_s in enumerate(lengths_s)
            if place < missed or length_s > HORIZON_S
        ]
        return sum(taken_s) / (end - begin)


def _rows(spans: Iterable[Span], apart_s: float) -> list[list[Span]]:
    """Spans in the order of their begins, those together that are no further from each other than this, in seconds."""
    rows: list[list[Span]] = []
    until = float("-inf")
    for begin, end in spans:
        if begin > until + apart_s:
            rows.append([])
        rows[-1].append((begin, end))
        until = max(until, end)
    return rows


def stalls_of(cluster: Cluster, server: Redis | ExternalRedis) -> contextlib.AbstractContextManager[Stalls]:
    """Watch the workers of a cluster, those that start meanwhile as well, and a server if it runs for this test."""
    return watched(lambda: cluster.workers.values(), server)


@contextlib.contextmanager
def watched(workers: Callable[[], Iterable[Popen[bytes]]], server: Redis | ExternalRedis) -> Iterator[Stalls]:
    """Watch processes, those of each moment, and a server."""
    stalls = Stalls()

    def look() -> None:
        processes = [*workers(), *([server.process] if server.process else [])]
        stalls.look(process.pid for process in processes)

    with meanwhile(look, EVERY_S):
        yield stalls
