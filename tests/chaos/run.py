"""A run under random faults, and what has become of its tasks."""

from __future__ import annotations

import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Callable

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from celery_global_rate.limits.timing import HORIZON_S
from testbed.sentinels import Sentinels

from ..cluster.events import VISIBILITY_S, Event, Fleet, Place, Strike, fleet_of
from ..cluster.runs import History
from .faults import FAULTS
from .promise import Extra, Limits, recovery_s, use, worst_window
from .report import CHANGE, Report

RATES = (20, 40, 60)
TASK = "late"
TASK_S = 0.02
#: Messages in the queue at least, so that there is always something to start.
BACKLOG = 600
#: A fault is over, and workers have found out, in seconds: what `docs/guarantees` says of Redis' return.
RETURN_S = 1.0
#: An override is in force everywhere so long after its reply, in seconds, as `docs/limits` says.
IN_FORCE_S = 0.25
#: From one fault to the next, in seconds.
CALM_S = (2.0, 5.0)
#: For what is left at the end, in seconds.
PATIENCE_S = 60 + 3 * VISIBILITY_S


class Chaos:
    """Workers under load, and a seed that says what happens to them.

    Args:
        fleet: of it.
        seed: of the faults, their order and the time between them.
        policy: of outages, as the workers have it.
        log: takes a line for each fault.
    """

    def __init__(self, fleet: Fleet, seed: int, policy: str, log: Callable[[str], object]) -> None:
        self._fleet, self._seed, self._policy, self._log = fleet, seed, policy, log
        self._chance = random.Random(seed)
        self._changes = [(time.monotonic(), float(RATES[-1]))]
        #: What may be in force.
        self._rates = {RATES[-1]}
        self._sent: set[str] = set()

    def run(self, seconds: float) -> Report:
        """Let faults happen, wait for what is left, and judge."""
        fleet, cluster = self._fleet, self._fleet.cluster
        self._feed()
        cluster.wait_for(50, 30, task=TASK)
        begin = time.monotonic()
        while (until := time.monotonic() + self._chance.uniform(*CALM_S)) < begin + seconds:
            self._rest(until)
            self._strike(begin)
        self._rest(max(begin + seconds, time.monotonic() + CALM_S[0]))
        end = time.monotonic()
        self._drain()
        return self._judge(begin, end, cluster.instants("release", TASK), History(fleet))

    def _feed(self) -> None:
        """Keep messages in the queue."""
        with contextlib.suppress(OSError, KombuError, RedisError):  # the broker may be away
            if self._fleet.broker.client().llen("celery") < BACKLOG:
                self._sent.update(self._fleet.cluster.send(TASK, BACKLOG, args=[TASK_S]))

    def _rest(self, until: float) -> None:
        while time.monotonic() < until:
            self._fleet.tend()
            self._feed()
            time.sleep(0.05)

    def _strike(self, begin: float) -> None:
        """Let one fault happen, to the Redis of the limits or to a worker that is up."""
        name = self._chance.choice([*FAULTS, CHANGE])
        event = Event(self._change) if name == CHANGE else FAULTS[name]
        for place in self._chance.sample(self._fleet.places, len(self._fleet.places)):
            if self._fleet.is_up(place):
                self._fleet.strike(name, place, event)
                strike = self._fleet.strikes[-1]
                whom = "" if event.strikes_all else f" ({place.worker})"
                self._log(f"{strike.at - begin:6.1f} s  {name}{whom}: {strike.over - strike.at:.2f} s")
                return

    def _change(self, fleet: Fleet, place: Place) -> None:
        """Another limit. If no worker has confirmed it, either may be in force: the faster one counts."""
        rate = self._chance.choice([rate for rate in RATES if {rate} != self._rates])
        self._rates.add(rate)
        self._changes.append((time.monotonic(), float(max(self._rates))))
        if fleet.ask("rate_limit", place, task_name=TASK, rate_limit=f"{rate}/s"):
            self._rates = {rate}
            self._changes.append((time.monotonic() + IN_FORCE_S, float(rate)))

    def _drain(self) -> None:
        """Have all start that is left, and wait until it has ended."""
        fleet, cluster = self._fleet, self._fleet.cluster
        fleet.settle()
        free = {"task_name": TASK, "rate_limit": "0"}
        cluster.wait(lambda: fleet.ask("rate_limit", fleet.places[0], **free), 30, "the limit was not lifted")
        with contextlib.suppress(TimeoutError):  # what did not end is counted
            cluster.wait(lambda: {record.task_id for record in cluster.records("end", TASK)} >= self._sent, PATIENCE_S)

    def _judge(self, begin: float, end: float, releases: list[float], history: History) -> Report:
        limits = Limits(self._changes)
        strikes = [strike for strike in sorted(self._fleet.strikes, key=lambda it: it.at) if begin <= strike.at < end]
        until = list(zip(strikes, [*(strike.at for strike in strikes[1:]), end]))
        spells = [(it.until + RETURN_S, later) for it, later in until if later - it.until > 2 * RETURN_S]
        releases = [instant for instant in releases if instant < end]
        worst, _ = worst_window(releases, limits, [self._extra(strike, limits) for strike in strikes])
        recovery = defaultdict(list)
        for strike, later in until:
            rate = min(limits.rate(strike.at), limits.rate(later))
            recovery[strike.event].append(recovery_s(releases, rate, strike.at, strike.over, later))
        return Report(
            seed=self._seed,
            workers=len(self._fleet.places),
            policy=self._policy,
            seconds=end - begin,
            tasks=len(self._sent),
            starts=sum(begin <= instant for instant in releases),
            worst=worst,
            use=use(releases, limits, spells),
            calm_s=sum(later - earlier for earlier, later in spells),
            lost=len(self._sent - history.ended),
            doubled=len(history.doubles),
            needless=len(history.needless),
            crashed=len(self._fleet.crashed),
            killed=len(self._fleet.killed),
            recovery_s=dict(recovery),
        )

    def _extra(self, strike: Strike, limits: Limits) -> Extra:
        """What docs/guarantees allows for it."""
        fault, rate = FAULTS.get(strike.event), limits.rate(strike.at)
        starts = 0.0
        if fault is not None and fault.forgets:
            starts += 1 + HORIZON_S * rate
        if fault is not None and fault.is_outage and self._policy == "share":
            count = len(self._fleet.places)
            starts += count - 1 + rate * RETURN_S * (count - 1) / count
        return Extra(strike.at, strike.over + RETURN_S, starts)


def run(seed: int, workers: int, seconds: float, policy: str, log: Callable[[str], object]) -> Report:
    """Start everything, let faults happen for so many seconds, and end everything.

    Args:
        seed: of the faults.
        workers: how many at a time, of two processes each.
        seconds: how long.
        policy: `share` or `hold`.
        log: takes a line for each fault.

    Returns:
        The report.

    Raises:
        RuntimeError: there is no Redis to run.
    """
    sentinels = Sentinels()
    conf = {"global_rate_redis_options": {"sentinel_kwargs": sentinels.options}, "global_rate_on_outage": policy}
    try:
        with fleet_of(workers, f"{RATES[-1]}/s", sentinels=sentinels.start(), conf=conf) as fleet:
            return Chaos(fleet, seed, policy, log).run(seconds)
    finally:
        sentinels.close()
