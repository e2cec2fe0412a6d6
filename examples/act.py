"""One act of the demo: what its workers recorded, and how that compares with the promise."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field
from math import inf

from celery_global_rate.limits.limit import Limit
from testbed.records import Record
from testbed.windows import excess, used

#: Starts per second before the change and after it, and the length of either phase in seconds.
RATES = (100, 300)
PHASE_S = 7.0
ACT_S = PHASE_S * len(RATES)


@dataclass
class Phase:
    """A stretch of an act with one declared rate.

    Attributes:
        rate: starts per second, as declared.
        begin: monotonic seconds.
        end: monotonic seconds, infinite while it lasts.
        calls: scripts that Redis ran meanwhile (EVALSHA and EVAL).
    """

    rate: int
    begin: float
    end: float = inf
    calls: int = 0

    @property
    def limit(self) -> Limit:
        """The rate as the extension reads it."""
        limit = Limit.parse(f"{self.rate}/s")
        assert limit is not None
        return limit


@dataclass(frozen=True)
class Result:
    """A phase against its promise.

    Attributes:
        measured: starts per second.
        most: releases in the busiest second.
        promised: releases that the promise allows in a second.
        excess: releases beyond the promise in the worst of all windows; 0 or less if it is kept.
        used: share of the slots that were used.
        calls: Redis calls per start.
    """

    measured: float
    most: int
    promised: float
    excess: float
    used: float
    calls: float


@dataclass
class Act:
    """What has been seen of an act so far. All instants are monotonic seconds.

    Attributes:
        title: what the picture calls it.
        extension: whether its workers run the extension.
        status: what is going on, in a word or two.
        began: the first start.
        seen: how far the records have been read.
        uncertainty_s: R, the largest that a worker has reported.
    """

    title: str
    extension: bool
    status: str = "to come"
    began: float | None = None
    seen: float = 0.0
    uncertainty_s: float = 0.0
    phases: list[Phase] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    releases: list[float] = field(default_factory=list)
    workers: list[tuple[float, str]] = field(default_factory=list)

    def take(self, records: list[Record], now: float) -> None:
        """Take records in, and sort: one process may be read later than another."""
        self.workers = sorted(
            [*self.workers, *((record.instant, record.worker) for record in records if record.kind == "start")]
        )
        self.starts = [instant for instant, _ in self.workers]
        self.releases = sorted([*self.releases, *(record.instant for record in records if record.kind == "release")])
        self.seen = now
        if self.began is None and self.starts:
            self.began = self.starts[0]

    @property
    def elapsed_s(self) -> float:
        """How much of the act has been seen."""
        return 0.0 if self.began is None else min(self.seen - self.began, ACT_S)

    def started(self, begin: float, end: float) -> int:
        """Starts between two instants."""
        return bisect_left(self.starts, end) - bisect_left(self.starts, begin)

    def shares(self) -> Counter[str]:
        """Starts of each worker in the last second that was seen."""
        first, end = bisect_left(self.starts, self.seen - 1), bisect_left(self.starts, self.seen)
        return Counter(worker for _, worker in self.workers[first:end])

    def allowed(self, phase: Phase, window_s: float) -> float:
        """What the promise allows in a window: b + (w + D + R) / T."""
        limit = phase.limit
        return limit.burst + (window_s + limit.grace_s + self.uncertainty_s) / limit.interval_s

    def result(self, phase: Phase) -> Result:
        """Judge a phase, by every window that ends in it; one that spans a change is held against the higher limit."""
        limit = phase.limit
        releases = self.releases[: bisect_left(self.releases, phase.end)]
        count = self.started(phase.begin, phase.end)
        return Result(
            count / (phase.end - phase.begin),
            busiest_second(releases[bisect_left(releases, phase.begin) :]),
            self.allowed(phase, 1.0),
            excess(releases, limit.interval_s, limit.burst, limit.grace_s + self.uncertainty_s),
            used(self.starts, limit.interval_s, phase.begin, phase.end),
            phase.calls / max(count, 1),
        )


def busiest_second(instants: list[float]) -> int:
    """The largest number of instants in any window of a second."""
    return max((bisect_right(instants, begin + 1) - index for index, begin in enumerate(instants)), default=0)
