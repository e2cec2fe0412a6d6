"""What has become of the tasks of a fleet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from testbed.records import Record

from .events import ON_ITS_WAY_S, Fleet, Strike

#: From the last line of a task until it is acknowledged, at the most, in seconds.
UNREAD_S = 0.25


@dataclass(frozen=True)
class Run:
    """A task that a worker has released, and a process has started.

    Attributes:
        task_id: the task.
        worker: by name.
        process: the id of the process.
        released: when the worker handed it over, monotonic seconds.
        started: its first line.
        ended: its last line; infinite where it has none.
        is_again: it has asked to be run once more.
    """

    task_id: str
    worker: str
    process: str
    released: float
    started: float
    ended: float
    is_again: bool


class History:
    """What has happened to the tasks of a fleet.

    Args:
        fleet: at its end.
        tasks: those that record their end.
    """

    def __init__(self, fleet: Fleet, tasks: Sequence[str] = ("late",)) -> None:
        self.strikes = fleet.strikes
        self._parted = fleet.cluster.records("parted")
        self._of: defaultdict[str, list[Record]] = defaultdict(list)
        for kind in ("received", "release", "start", "again", "end"):
            for record in fleet.cluster.records(kind):
                if record.task in tasks:
                    self._of[record.task_id].append(record)
        for records in self._of.values():
            records.sort()
        self.runs = {task_id: runs for task_id in self._of if (runs := list(self._runs(task_id)))}

    def _runs(self, task_id: str) -> Iterator[Run]:
        records = self._of[task_id]
        for record in records:
            if record.kind == "start":
                released = [it.instant for it in records if it.kind == "release" and it.worker == record.worker]
                ends = [it for it in records if it.kind in ("again", "end") and it.process == record.process]
                end = min((it for it in ends if it.instant >= record.instant), default=None)
                yield Run(
                    task_id,
                    record.worker,
                    record.process,
                    max(instant for instant in released if instant <= record.instant),
                    record.instant,
                    end.instant if end else float("inf"),
                    end is not None and end.kind == "again",
                )

    def over(self, strike: Strike, worker: str) -> float:
        """When an event has had its effect on a worker: before, a task may pass from the held ones to the pool."""
        if not strike.parts:
            return strike.until
        parted = (record.instant for record in self._parted if record.worker == worker)
        return min((instant for instant in parted if instant >= strike.at), default=strike.until)

    def held(self, strike: Strike) -> set[str]:
        """The tasks that the workers it struck held, from its beginning until it had its effect."""
        held = set()
        for task_id, records in self._of.items():
            last = [record for record in records if record.instant < strike.at][-1:]
            if last and last[0].kind == "received" and (worker := last[0].worker) in strike.workers:
                later = [record for record in records if strike.at <= record.instant <= self.over(strike, worker)]
                if not any((record.kind, record.worker) == ("release", worker) for record in later):
                    held.add(task_id)
        return held

    def is_struck(self, run: Run) -> bool:
        """Whether a task was with the pool when something happened to its worker: it then has Celery's own guarantee.

        After `pool_restart` each process runs one more task before it ends, and Celery may not read its result.
        """
        for strike in self.strikes:
            if run.worker not in strike.workers or run.ended < strike.at - UNREAD_S:
                continue
            if strike.parts and run.released <= self.over(strike, run.worker):
                return True
            if strike.event == "pool_restart" and run == self._next(strike.at, run.process):
                return True
        return False

    def _next(self, instant: float, process: str) -> Run | None:
        runs = (run for runs in self.runs.values() for run in runs if run.process == process)
        return min((run for run in runs if run.ended >= instant), key=lambda run: run.started, default=None)

    @property
    def ended(self) -> set[str]:
        """Tasks that have run to their end."""
        return {
            task_id
            for task_id, runs in self.runs.items()
            if any(run.ended < float("inf") and not run.is_again for run in runs)
        }

    @property
    def on_their_way(self) -> set[str]:
        """Tasks that asked to be run again as a worker parted: their message may have been on its way to that one.

        kombu takes a message from its list first, and notes down afterwards that it has it. It is lost in between, by
        Celery's own doing.
        """
        times = [(strike.at - ON_ITS_WAY_S, strike.until) for strike in self.strikes if strike.parts]
        return {
            task_id
            for task_id, runs in self.runs.items()
            if any(run.is_again and any(begin <= run.ended <= end for begin, end in times) for run in runs)
        }

    @property
    def struck(self) -> set[str]:
        """Tasks that were with the pool at an event."""
        return {task_id for task_id, runs in self.runs.items() if any(map(self.is_struck, runs))}

    @property
    def doubles(self) -> set[str]:
        """Tasks that ran more often than they have asked to."""
        return {task_id for task_id, runs in self.runs.items() if sum(not run.is_again for run in runs) > 1}

    @property
    def needless(self) -> set[str]:
        """Those of them that ran again although nothing had struck the run before.

        A run that was struck after it had asked to be run again may bring about two more.
        """
        return {task_id for task_id in self.doubles if self._is_needless(self.runs[task_id])}

    def _is_needless(self, runs: Sequence[Run]) -> bool:
        *others, _ = sorted(runs, key=lambda run: run.started)
        return sum(self.is_struck(run) + run.is_again for run in others) < len(others)
