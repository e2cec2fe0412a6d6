"""What has come of a run, and whether it is what is promised."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from rich.table import Table

from .faults import FAULTS

CHANGE = "limit changed"
#: By fault, how long after it tasks may take to start at their rate, in seconds. A worker that hangs is killed, too.
RECOVERY_S = {**{name: fault.recovery_s for name, fault in FAULTS.items()}, CHANGE: 1.5, "KILL": 1.5}


@dataclass(frozen=True)
class Report:
    """What has come of a run.

    Attributes:
        seed: lets it happen again.
        workers: how many at a time.
        policy: of outages.
        seconds: how long it was.
        tasks: how many were sent.
        starts: in that time.
        windows: how many there are, from one start to a later one, of all limits together; each was looked at.
        worst: by limit, how many starts its worst window holds beyond what is promised; not above 0 where that is kept.
        uncertainty_s: R in these, in seconds.
        use: the share of the slots that were used from a second after each fault to the next one.
        calm_s: how long that was in all, in seconds.
        lost: how many tasks did not end.
        doubled: how many ran more than once.
        needless: how many of them although nothing had happened to the workers that ran them.
        crashed: workers that have ended by themselves.
        killed: workers that had not ended 15 s after they were told to.
        recovery_s: by fault, how long after its end the last gap between two starts lasted, in seconds.
    """

    seed: int
    workers: int
    policy: str
    seconds: float
    tasks: int
    starts: int
    windows: int
    worst: dict[str, float]
    uncertainty_s: float
    use: float
    calm_s: float
    lost: int
    doubled: int
    needless: int
    crashed: int
    killed: int
    recovery_s: dict[str, list[float]]

    @property
    def worst_window(self) -> float:
        """Of all limits."""
        return max(self.worst.values())

    @property
    def is_kept(self) -> bool:
        """Whether all that is promised was kept. Time without a fault is short, and new workers start in it."""
        is_back = all(max(them) <= RECOVERY_S[fault] for fault, them in self.recovery_s.items())
        is_whole = not (self.lost or self.needless or self.crashed)
        return self.worst_window <= 0 and self.use >= 0.95 and is_back and is_whole

    def __str__(self) -> str:
        longest = max((max(them) for them in self.recovery_s.values()), default=0.0)
        return (
            f"seed {self.seed}, {self.workers} workers, {self.policy}, {self.seconds:.0f} s, "
            f"{sum(map(len, self.recovery_s.values()))} faults of {len(self.recovery_s)} kinds: {self.starts} starts, "
            f"{self.windows:,} windows of {len(self.worst)} limits, the worst {self.worst_window:+.2f} with "
            f"R = {1000 * self.uncertainty_s:.0f} ms, "
            f"{self.use:.4f} of the slots used in {self.calm_s:.0f} s without a fault, "
            f"longest recovery {longest:.2f} s, {self.lost} of {self.tasks} lost, {self.doubled} doubled "
            f"({self.needless} of them needlessly), {self.crashed} workers crashed, {self.killed} did not end in time"
        )


def windows(report: Report) -> Table:
    """What the worst window of each limit holds beyond what is promised."""
    worst = Table("limit", "starts beyond, in the worst window")
    for limit, excess in report.worst.items():
        worst.add_row(limit, f"{excess:+.2f}")
    return worst


def recovery(report: Report) -> Table:
    """How long it took after each kind of fault until tasks started at their rate again."""
    rows = Table("fault", "times", "recovered after, median", "longest")
    for fault, seconds in sorted(report.recovery_s.items()):
        rows.add_row(fault, str(len(seconds)), f"{statistics.median(seconds):.2f} s", f"{max(seconds):.2f} s")
    return rows
