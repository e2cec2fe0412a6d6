"""A load on a fleet, watched on the Redis clock, and what the promise says of it."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from celery_global_rate.limits.limit import Limit
from testbed.meanwhile import meanwhile, wait
from testbed.windows import excess, used

from .fleet import Fleet
from .starts import Starts

#: Tasks that are sent and have not started.
DEPTH = 90
#: Between two looks at the depth.
FEED_S = 0.1


@dataclass(frozen=True)
class Verdict:
    """What a watch has shown.

    Attributes:
        limit: the one in force.
        seconds: how long it was watched.
        starts: in that time.
        used: the share of the slots that were used in that time.
        excess: releases in the worst window of the whole run beyond ``b + (w + D + R) / T``; 0 or less: kept.
        slack_s: D + R, in seconds.
        shares: starts of each worker in that time, the largest first.
    """

    limit: Limit
    seconds: float
    starts: int
    used: float
    excess: float
    slack_s: float
    shares: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"{self.limit} for {self.seconds:.0f} s: {self.starts / self.seconds:.2f} starts/s, {self.used:.4f} of the "
            f"slots used, worst window {self.excess:+.2f} releases against the promise (D + R "
            f"{self.slack_s * 1000:.0f} ms), shares {'/'.join(map(str, self.shares))}"
        )


@dataclass
class Trial:
    """A limit, a fleet that has to keep it, and a load that never ends.

    The share of the slots is counted by starts, the windows by releases, and so what a loaded machine or a fault makes
    of a task that the pool already has (J) is in no window.

    Args:
        fleet: the workers.
        starts: what their tasks have recorded.
        limit: of the task `limited`.
        slack_s: D + R, the largest so far.

    Attributes:
        sent: ids of the tasks with the limit.
    """

    fleet: Fleet
    starts: Starts
    limit: Limit
    slack_s: float = 0.0
    sent: list[str] = field(default_factory=list)
    _written_off: int = 0

    @contextlib.contextmanager
    def load(self) -> Iterator[None]:
        """Keep tasks waiting."""

        def feed() -> None:
            with contextlib.suppress(Exception):  # whatever the fault under test does to a producer
                missing = DEPTH + self._written_off - (len(self.sent) - self.starts.count())
                self.sent += self.fleet.send("limited", max(0, missing))

        with meanwhile(feed, FEED_S):
            wait(lambda: self.starts.count() > self.limit.per_second, 30, self.fleet.logs)
            yield

    def write_off(self) -> None:
        """What waits now may stay hidden in the broker: count on it no more, and send as much again."""
        self._written_off = len(self.sent) - self.starts.count()

    def rest(self, lost: int = 0) -> tuple[int, int]:
        """Wait until all that was sent has run; returns how many have not run, `lost` at the most, and ran twice."""

        def missing() -> set[str]:
            return set(self.sent) - {start.task_id for start in self.starts.of()}

        wait(lambda: len(missing()) <= lost, 30, lambda: f"{len(missing())} tasks have not run {self.fleet.logs()}")
        starts = self.starts.of()
        return len(missing()), len(starts) - len({start.task_id for start in starts})

    def watch(self, seconds: float, calm: bool = True) -> Verdict:
        """Let some time pass, and judge it.

        Args:
            seconds: how long.
            calm: whether no worker is killed and all report their R.
        """
        begin = self.starts.now()
        time.sleep(seconds)
        end = self.starts.now()
        time.sleep(2 * self.limit.interval_s)
        if calm:
            self._learn()
        return self.judge(begin, end)

    def judge(self, begin: float, end: float) -> Verdict:
        """Judge the time between two instants on the Redis clock; every window of the whole run counts."""
        starts = self.starts.of()
        instants = [start.instant for start in starts]
        releases = sorted(start.released for start in starts)
        watched = [start for start in starts if begin <= start.instant < end]
        return Verdict(
            limit=self.limit,
            seconds=end - begin,
            starts=len(watched),
            used=used(instants, self.limit.interval_s, begin, end),
            excess=excess(releases, self.limit.interval_s, self.limit.burst, self.slack_s),
            slack_s=self.slack_s,
            shares=tuple(count for _, count in Counter(start.worker for start in watched).most_common()),
        )

    def _learn(self) -> None:
        answers = self.fleet.stats().values()
        uncertainty_s = max(answer.get("widest_clock_uncertainty_ms") or 0 for answer in answers) / 1000
        self.slack_s = max(self.slack_s, self.limit.grace_s + uncertainty_s)
