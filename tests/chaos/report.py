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
        worst: by how many starts the worst window exceeds what is promised; not above 0 where that is kept.
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
    worst: float
    use: float
    calm_s: float
    lost: int
    doubled: int
    needless: int
    crashed: int
    killed: int
    recovery_s: dict[str, list[float]]

    @property
    def is_kept(self) -> bool:
        """Whether all that is promised was kept. Time without a fault is short, and new workers start in it."""
        is_back = all(max(them) <= RECOVERY_S[fault] for fault, them in self.recovery_s.items())
        return self.worst <= 0 and self.use >= 0.95 and is_back and not (self.lost or self.needless or self.crashed)

    def __str__(self) -> str:
        longest = max((max(them) for them in self.recovery_s.values()), default=0.0)
        return (
            f"seed {self.seed}, {self.workers} workers, {self.policy}, {self.seconds:.0f} s, "
            f"{sum(map(len, self.recovery_s.values()))} faults of {len(self.recovery_s)} kinds: {self.starts} starts, "
            f"worst window {self.worst:+.2f}, {self.use:.4f} of the slots used in {self.calm_s:.0f} s without a fault, "
            f"longest recovery {longest:.2f} s, {self.lost} of {self.tasks} lost, {self.doubled} doubled "
            f"({self.needless} of them needlessly), {self.crashed} workers crashed, {self.killed} did not end in time"
        )


def table(report: Report) -> Table:
    """How long it took after each kind of fault until tasks started at their rate again."""
    recovery = Table("fault", "times", "recovered after, median", "longest")
    for fault, seconds in sorted(report.recovery_s.items()):
        recovery.add_row(fault, str(len(seconds)), f"{statistics.median(seconds):.2f} s", f"{max(seconds):.2f} s")
    return recovery
