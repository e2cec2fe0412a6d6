"""Pools that are busy, in virtual time: how long their tasks take, and what is possible if that is known beforehand."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.scheduling.lane import Lane
from celery_global_rate.scheduling.run_times import RunTimes
from testbed.windows import excess, jain

from .simulation import Worker, fill, model_world

#: The run time of a task, in seconds, that begins at a virtual instant.
RunTime = Callable[[float], float]
WARM_UP_S = 2.0


def equal(mean_s: float, chance: random.Random) -> RunTime:
    """As good as equal: exactly equal ones would hide what happens where they are not."""
    return lambda now: mean_s * chance.uniform(0.95, 1.05)


def exponential(mean_s: float, chance: random.Random) -> RunTime:
    """How long a task has run says nothing about when it ends."""
    return lambda now: chance.expovariate(1 / mean_s)


def bimodal(mean_s: float, chance: random.Random) -> RunTime:
    """5 ms, or a second."""
    long_share = (mean_s - 0.005) / 0.995
    return lambda now: 1.0 if chance.random() < long_share else 0.005


def changing(mean_s: float, chance: random.Random) -> RunTime:
    """In turn, for a second each: long and a quarter of that. The mean is that of the starts in both."""
    return lambda now: mean_s * chance.uniform(0.95, 1.05) * (2.5 if now % 2 < 1 else 0.625)


@dataclass(frozen=True)
class Outcome:
    """What a run has shown.

    Attributes:
        starts: in the time that was watched.
        possible: what a scheduler that knew all run times beforehand would start in that time.
        capacity: what it would start without a limit.
        calls_per_s: calls of the script, per worker.
        excess: releases in the worst window beyond the promise.
        jain: fairness of the workers' shares.
    """

    starts: int
    possible: int
    capacity: int
    calls_per_s: float
    calls_per_start: float
    excess: float
    jain: float

    @property
    def share(self) -> float:
        return self.starts / self.possible

    def __str__(self) -> str:
        return (
            f"{self.share:.3f} of what is possible, {self.calls_per_start:.2f} calls a start, "
            f"{self.calls_per_s:.0f} a second per worker, Jain {self.jain:.3f}"
        )


def clairvoyant(run_time: RunTime, processes: int, interval_s: float, usable_s: float, end: float) -> int:
    """How many tasks start after the warm-up where the end of each is known, and a slot is given at any instant.

    A slot is at least an interval after the one before, and is used by the process that is free first: no earlier
    than in its slot, and no later than its usable time afterwards.
    """
    free_at = [0.0] * processes
    slot, starts = float("-inf"), 0
    while True:
        free = heapq.heappop(free_at)
        slot = max(slot + interval_s, free - usable_s)
        start = max(free, slot)
        if start >= end:
            return starts
        starts += start >= WARM_UP_S
        heapq.heappush(free_at, start + run_time(start))


class Knowing(RunTimes):
    """Knows when each running task will end; how long those after it take, only on average."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    def ends(self, ages_s: Sequence[float], within_s: float) -> tuple[float, float]:
        if not self.mean_s:
            return 0.0, 0.0
        left_s = [self._worker.monotonic() + within_s - at for at in self._worker.ends]
        idle = max(0, len(ages_s) - len(left_s))
        ends = sum(1 + left / self.mean_s for left in left_s if left >= 0) + idle * within_s / self.mean_s
        return ends, 0.0


def busy(
    kind: Callable[[float, random.Random], RunTime],
    mean_s: float,
    processes: int,
    workers: int,
    factor: float,
    seconds: float,
    knows: bool = False,
    seed: int = 1,
) -> Outcome:
    """Run workers on a backlog; the nth start takes equally long in every run of a seed.

    Args:
        kind: of run times.
        mean_s: of the run times, in seconds.
        processes: of each worker.
        workers: how many.
        factor: the limit, as a multiple of what the pools can do.
        seconds: how long to watch.
        knows: let the workers know when their tasks end.
        seed: of all that is drawn.
    """
    rate = min(factor * processes * workers / mean_s, 100_000.0)
    limit = Limit.parse(rate)
    assert limit is not None
    draw = kind(mean_s, random.Random(seed))
    world, chance, end = model_world(seed), random.Random(seed), WARM_UP_S + seconds
    pool = [
        Worker(
            world,
            f"w{number}",
            processes,
            lambda: draw(world.now),
            latency=lambda: chance.uniform(0.0001, 0.0002),
            lateness=lambda: chance.uniform(0, 0.002),
        )
        for number in range(workers)
    ]
    for worker in pool:
        if knows:
            worker.scheduler._capacity._run_times = Knowing(worker)
        fill(
            worker,
            Lane("t", own("t", limit)),
            range(int(3 * end * min(rate, processes * workers / mean_s) / workers) + 100),
        )
    world.run(WARM_UP_S)
    before = world.calls
    world.run(end)
    instants = sorted(instant for worker in pool for instant, _ in worker.releases)
    starts = sum(instant >= WARM_UP_S for instant in instants)
    slack_s = limit.grace_s + max(worker.clock.widest_s for worker in pool)
    possible = partial(clairvoyant, processes=processes * workers, usable_s=limit.usable_s, end=end)
    return Outcome(
        starts=starts,
        possible=possible(kind(mean_s, random.Random(seed)), interval_s=limit.interval_s),
        capacity=possible(kind(mean_s, random.Random(seed)), interval_s=0.0),
        calls_per_s=(world.calls - before) / seconds / workers,
        calls_per_start=(world.calls - before) / max(1, starts),
        excess=excess(instants, limit.interval_s, limit.burst, slack_s),
        jain=jain(len(worker.releases) for worker in pool),
    )
