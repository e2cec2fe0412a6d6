"""What has come of a run, and whether it is what is promised."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from .footprint import is_flat


@dataclass(frozen=True)
class Witness:
    """A worker that has lived through all of it.

    Attributes:
        pool: what runs its tasks.
        footprints: the least memory (megabytes) and descriptors of its main process before 10 %, 50 % and 100 %.
        tasks: that it has started in the second half.
        complaints: lines of the extension's in its log, warnings and worse.
    """

    pool: str
    footprints: tuple[tuple[float, int], tuple[float, int], tuple[float, int]]
    tasks: int
    complaints: tuple[str, ...]

    @property
    def is_flat(self) -> bool:
        """Whether its memory and its descriptors have stayed what they were."""
        return is_flat(self.footprints[1], self.footprints[2], self.tasks)


@dataclass(frozen=True)
class Report:
    """What has come of a run.

    Attributes:
        seed: of what happened.
        seconds: how long it was.
        tasks: by name, how many were sent, besides those that tasks send, and how often they started.
        events: how often each has happened.
        stuck: tasks of which none started after an event although some were waiting, and the event.
        longest_s: the longest that it took after an event until each task had started again, in seconds.
        worst: by how many starts the worst window of a limit exceeds what is promised; not above 0 where it is kept.
        use: the share of the slots that were used.
        missed: slots in a row that a task had missed when it started again, events included, and the task.
        doubled: tasks that started more often than they do by themselves, other than those that Celery itself repeats.
        needless: those of them that no worker which was ended had received.
        lost: tasks that were sent, not revoked, and never started.
        struck: those of them that a worker had just handed to its pool when it was ended: Celery's own guarantee.
        crashed: workers that have ended by themselves.
        keys: in the Redis of the limits at the end.
        most_keys: that there may be, for so many limits.
        witnesses: workers that have lived through all of it.
    """

    seed: int
    seconds: float
    tasks: dict[str, tuple[int, int]]
    events: dict[str, int]
    stuck: tuple[str, ...]
    longest_s: float
    worst: float
    use: float
    missed: tuple[float, str]
    doubled: int
    needless: tuple[str, ...]
    lost: tuple[str, ...]
    struck: int
    crashed: int
    keys: int
    most_keys: int
    witnesses: tuple[Witness, ...]

    @property
    def is_kept(self) -> bool:
        """Whether all that is promised was kept. Processes that are killed and forked all the time cost slots."""
        is_quiet = all(not it.complaints and it.is_flat for it in self.witnesses)
        is_paced = self.worst <= 0 and self.use >= 0.95
        is_tidy = self.keys <= self.most_keys
        return is_quiet and is_paced and is_tidy and not (self.stuck or self.lost or self.needless or self.crashed)

    def __str__(self) -> str:
        sent, starts = (sum(them) for them in zip(*self.tasks.values()))
        return (
            f"seed {self.seed}, {self.seconds:.0f} s, {sum(self.events.values())} events: {sent} tasks sent, "
            f"{starts} starts, worst window {self.worst:+.2f}, {self.use:.4f} of the slots used, "
            f"at most {self.missed[0]:.1f} missed in a row ({self.missed[1]}), "
            f"all tasks start again within {self.longest_s:.1f} s, {len(self.stuck)} stuck {list(self.stuck[:5])}, "
            f"{len(self.lost)} lost {list(self.lost)} ({self.struck} more were in the pool of a worker that ended), "
            f"{self.doubled} started twice ({len(self.needless)} without need {list(self.needless[:5])}), "
            f"{self.crashed} crashed, {self.keys} keys in Redis of at most {self.most_keys}, "
            f"complaints: {[line for it in self.witnesses for line in it.complaints[:3]]}"
        )


def table(report: Report) -> Table:
    """The footprints of those that have lived through all of it."""
    rows = Table("pool", "MB at 10 %", "at 50 %", "at 100 %", "descriptors at 10 %", "at 50 %", "at 100 %", "flat")
    for witness in report.witnesses:
        memory = (f"{memory_mb:.1f}" for memory_mb, _ in witness.footprints)
        descriptors = (str(count) for _, count in witness.footprints)
        rows.add_row(witness.pool, *memory, *descriptors, "yes" if witness.is_flat else "no")
    return rows


def starts(report: Report) -> Table:
    """How often each task was sent and started."""
    rows = Table("task", "sent", "starts")
    for name, (sent, count) in report.tasks.items():
        rows.add_row(name, str(sent), str(count))
    return rows
