"""The runs that tests, benchmark and README share: a load, workers, and a verdict."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import redis

from celery_global_rate.limits.limit import Limit

from .cluster import Cluster
from .stalls import Stalls
from .windows import excess, jain, used

#: The processes start, connect and learn the first run times.
WARM_UP_S = 1.5


@dataclass(frozen=True)
class Run:
    """What a run under backlog has shown.

    Attributes:
        rate: as declared.
        workers: how many.
        seconds: how long it was watched.
        starts: starts in that time.
        starts_per_s: as a rate.
        used: the share of the slots that were used.
        release_excess: releases in the worst window beyond ``b + (w + D + R) / T``; 0 or less: the promise is kept.
        start_excess: starts in the worst window beyond ``b + (w + D + R + J) / T``.
        uncertainty_ms: R, the largest of all workers.
        delay_ms: J, the longest that a task without a limit took from its hand-over to its first line.
        calls_per_s: calls of the limiter to Redis, per worker.
        jain: fairness of the workers' shares.
        missed: slots that were reserved and not used.
        stalled: the share of the slots that stalls of the machine may have taken, at the most; 0 if nobody watched.
    """

    rate: str
    workers: int
    seconds: float
    starts: int
    starts_per_s: float
    used: float
    release_excess: float
    start_excess: float
    uncertainty_ms: float
    delay_ms: float
    calls_per_s: float
    jain: float
    missed: int
    stalled: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether every window, of releases and of starts, is within the promise."""
        return self.release_excess <= 0 and self.start_excess <= 0

    def __str__(self) -> str:
        return (
            f"{self.rate} with {self.workers} workers for {self.seconds:.0f} s: {self.starts_per_s:.2f} starts/s, "
            f"{self.used:.4f} of the slots used, worst window {self.release_excess:+.2f} releases and "
            f"{self.start_excess:+.2f} starts against the promise (R {self.uncertainty_ms:.2f} ms, "
            f"J {self.delay_ms:.1f} ms), {self.calls_per_s:.1f} calls/s per worker, Jain {self.jain:.3f}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "kept": self.kept}


def script_calls(client: redis.Redis) -> int:
    """Calls of scripts that a server has seen: only the limiter's, unless a broker or a lock of kombu's uses it too."""
    stats: dict[str, Any] = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{verb}", {}).get("calls", 0) for verb in ("evalsha", "eval"))


def backlog(
    cluster: Cluster,
    client: redis.Redis,
    workers: int,
    seconds: float,
    delayed: str | None = "free",
    stalls: Stalls | None = None,
    **pool: Any,
) -> Run:
    """Start workers on a backlog that outlasts the run, and watch them.

    Args:
        cluster: with the rate to hold.
        client: of the limiter's server.
        workers: how many to start.
        seconds: how long to watch.
        delayed: the task that the pool's delay is measured on; None for all.
        stalls: of the workers and their Redis.
        pool: more arguments for `Cluster.start`.
    """
    limit = Limit.parse(cluster.rate, cluster.burst)
    assert limit is not None
    watched_s = WARM_UP_S + seconds + 2 * min(limit.interval_s, 1.0)
    count = int(min(limit.per_second, 2000) * (watched_s + 2)) + 120 * workers
    for _ in range(count // 10 + 1):  # one in ten without a limit, to measure the pool's own delay
        cluster.send("free")
        cluster.send("limited", 10)
    cluster.start(workers, **pool)
    time.sleep(WARM_UP_S)
    begin, calls = time.monotonic(), script_calls(client)
    time.sleep(seconds)
    end = time.monotonic()
    calls = script_calls(client) - calls
    time.sleep(2 * min(limit.interval_s, 1.0))
    return judge(cluster, limit, workers, begin, end, calls, delayed, stalls)


def judge(
    cluster: Cluster,
    limit: Limit,
    workers: int,
    begin: float,
    end: float,
    calls: int,
    delayed: str | None = "free",
    stalls: Stalls | None = None,
) -> Run:
    """Slide every window over what a cluster has recorded; the pool's delay is measured on the tasks `delayed`."""
    stats = cluster.stats().values()
    uncertainty_s = max((worker.get("widest_clock_uncertainty_ms") or 0 for worker in stats), default=0) / 1000
    delay_s = cluster.pool_delay_s(delayed)
    releases, starts = cluster.instants("release"), cluster.instants("start")
    inside = sum(begin <= instant < end for instant in starts)
    slack_s = limit.grace_s + uncertainty_s
    missed = sum(worker.get("missed_slots", 0) for worker in stats)
    return Run(
        rate=str(cluster.rate),
        workers=workers,
        seconds=end - begin,
        starts=inside,
        starts_per_s=inside / (end - begin),
        used=used(starts, limit.interval_s, begin, end),
        release_excess=excess(releases, limit.interval_s, limit.burst, slack_s),
        start_excess=excess(starts, limit.interval_s, limit.burst, slack_s + delay_s),
        uncertainty_ms=uncertainty_s * 1000,
        delay_ms=delay_s * 1000,
        calls_per_s=calls / (end - begin) / workers,
        jain=jain(cluster.shares()),
        missed=missed,
        stalled=stalls.most(limit, begin, end, missed) if stalls else 0.0,
    )
