"""A run under random faults, and what has become of its tasks."""

from __future__ import annotations

import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from celery_global_rate.limits.timing import HORIZON_S
from testbed.sentinels import Sentinels

from ..cluster.events import GRACE_S as PARTING_S
from ..cluster.events import VISIBILITY_S, Event, Fleet, Place, Strike, fleet_of
from ..cluster.runs import History
from .faults import FAULTS
from .load import LOADS, UNITS, Kind, Load, Named
from .promise import GRACE_S, UNCERTAINTY_S, Extra, Limits, RatesInForce, recovery_s, use, worst_window
from .report import CHANGE, Report

#: From one look at what has ended to the next, in seconds.
FEED_S = 0.5
#: A fault is over, and workers have found out, in seconds: what `docs/guarantees` says of Redis' return.
RETURN_S = 1.0
#: An override is in force everywhere so long after its reply, in seconds, as `docs/limits` says.
IN_FORCE_S = 0.25
#: From one fault to the next, in seconds.
CALM_S = (2.0, 5.0)
#: The header that has the value of a key.
VALUE = "tenant"
#: For what is left at the end, in seconds.
PATIENCE_S = 60 + 3 * VISIBILITY_S


class Chaos:
    """Workers under load, and a seed that says what happens to them.

    Args:
        fleet: of it.
        load: what it has to do.
        seed: of the faults, their order and the time between them.
        policy: of outages, as the workers have it.
        log: takes a line for each fault.
    """

    def __init__(self, fleet: Fleet, load: Load, seed: int, policy: str, log: Callable[[str], object]) -> None:
        self._fleet, self._load, self._seed, self._policy, self._log = fleet, load, seed, policy, log
        self._chance = random.Random(seed)
        now = time.monotonic()
        self._in_force = {named.name: RatesInForce(now, named.rates[-1], named.bursts) for named in load.named}
        #: By kind of message, those that the broker has confirmed.
        self._sent: list[set[str]] = [set() for _ in load.kinds]
        #: By task, the limits that it passes.
        self._passes: dict[str, list[tuple[str, int]]] = {}
        self._fed_at = 0.0
        self._uncertainty_s = UNCERTAINTY_S

    def run(self, seconds: float) -> Report:
        """Let faults happen, wait for what is left, and judge."""
        fleet = self._fleet
        self._feed()
        fleet.cluster.wait(lambda: len(fleet.cluster.records("start")) >= 50, 30, "50 starts")
        begin = time.monotonic()
        while (until := time.monotonic() + self._chance.uniform(*CALM_S)) < begin + seconds:
            self._rest(until)
            self._strike(begin)
        self._rest(max(begin + seconds, time.monotonic() + CALM_S[0]))
        end = time.monotonic()
        self._drain()
        return self._judge(begin, end, History(fleet, self._load.tasks))

    def _feed(self) -> None:
        """Keep tasks of each kind waiting."""
        self._fed_at = time.monotonic()
        ended = self._ended
        for kind, sent in zip(self._load.kinds, self._sent):
            missing = kind.backlog - len(sent - ended)
            if missing < kind.backlog / 4:
                continue
            with contextlib.suppress(OSError, KombuError, RedisError):  # the broker may be away
                for index in range(missing):
                    sent.add(self._send(kind, kind.arguments[index % len(kind.arguments)]))

    def _send(self, kind: Kind, arguments: Sequence[Any]) -> str:
        task_id = str(uuid4())
        self._passes[task_id] = self._load.limits(kind)
        headers = {VALUE: kind.value, UNITS: kind.units}
        self._fleet.cluster.send(kind.task, args=arguments, queue=kind.queue, headers=headers, task_id=task_id)
        return task_id

    @property
    def _ended(self) -> set[str]:
        return {record.task_id for record in self._fleet.cluster.records("end")}

    def _rest(self, until: float) -> None:
        while time.monotonic() < until:
            self._fleet.tend()
            if time.monotonic() > self._fed_at + FEED_S:
                self._feed()
            time.sleep(0.05)
        if self._load.is_r_asked:
            stats = self._fleet.cluster.stats().values()
            widest_ms = [worker.get("widest_clock_uncertainty_ms") or 0 for worker in stats]
            self._uncertainty_s = max([self._uncertainty_s, *(ms / 1000 for ms in widest_ms)])

    def _strike(self, begin: float) -> None:
        """Let one fault happen, to the Redis of the limits or to a worker that is up."""
        name = self._chance.choice([*FAULTS, *[CHANGE for _ in self._load.named]])
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
        named = self._chance.choice(self._load.named)
        in_force = self._in_force[named.name]
        rates = self._chance.choice([rates for rates in named.rates if {rates} != in_force.rates])
        in_force.asked(time.monotonic(), rates)
        if fleet.ask("rate_limit", place, task_name=named.name, rate_limit=",".join(f"{rate}/s" for rate in rates)):
            in_force.confirmed(time.monotonic() + IN_FORCE_S, rates)

    def _drain(self) -> None:
        """Have all start that is left, and wait until it has ended."""
        fleet, cluster = self._fleet, self._fleet.cluster
        fleet.settle()
        for named in self._load.named:
            self._lift(named)
        with contextlib.suppress(TimeoutError):  # what did not end is counted
            cluster.wait(lambda: self._ended >= set().union(*self._sent), PATIENCE_S)

    def _lift(self, named: Named) -> None:
        fleet, free = self._fleet, {"task_name": named.name, "rate_limit": "0"}
        fleet.cluster.wait(
            lambda: fleet.ask("rate_limit", fleet.places[0], **free), 30, f"the limit of {named.name} was not lifted"
        )

    def _limits(self) -> dict[str, tuple[Limits, int, int]]:
        """By limit: its rate over the time, its burst, and the most units that a start takes."""
        return {
            limit: (self._in_force[named.name].limits(index), named.bursts[index], named.largest)
            for named in self._load.named
            for limit, index in named.limits
        }

    def _releases(self, end: float) -> dict[str, list[float]]:
        """By limit: the instant of each unit that releases took of it, before the end of the watch."""
        releases: dict[str, list[float]] = defaultdict(list)
        for record in self._fleet.cluster.records("release"):
            if record.instant < end:
                for limit, units in self._passes[record.task_id]:
                    releases[limit] += [record.instant] * units
        return releases

    def _judge(self, begin: float, end: float, history: History) -> Report:
        limits, releases = self._limits(), self._releases(end)
        strikes = [strike for strike in sorted(self._fleet.strikes, key=lambda it: it.at) if begin <= strike.at < end]
        until = list(zip(strikes, [*(strike.at for strike in strikes[1:]), end]))
        spells = [(it.until + RETURN_S, later) for it, later in until if later - it.until > 2 * RETURN_S]
        worst = {}
        for limit, (rates, burst, largest) in limits.items():
            extras = [self._extra(strike, rates, burst, largest) for strike in strikes]
            most = max(burst, largest)
            worst[limit], _ = worst_window(releases[limit], rates, extras, most, GRACE_S + self._uncertainty_s)
        busy, (busy_rates, *_) = releases[self._load.busy], limits[self._load.busy]
        recovery = defaultdict(list)
        for strike, later in until:
            rate = min(busy_rates.rate(strike.at), busy_rates.rate(later))
            # Until a worker has parted, or was killed for it, messages are kept from all.
            over = strike.until if strike.until > strike.at + PARTING_S else strike.over
            recovery[strike.event].append(recovery_s(busy, rate, strike.at, over, later))
        sent = set().union(*self._sent)
        return Report(
            seed=self._seed,
            workers=len(self._fleet.places),
            policy=self._policy,
            seconds=end - begin,
            tasks=len(sent),
            starts=sum(begin <= record.instant < end for record in self._fleet.cluster.records("release")),
            windows=sum(len(instants) * (len(instants) + 1) // 2 for instants in releases.values()),
            worst=worst,
            uncertainty_s=self._uncertainty_s,
            use=use(busy, busy_rates, spells),
            calm_s=sum(later - earlier for earlier, later in spells),
            lost=len(sent - history.ended - history.on_their_way),
            doubled=len(history.doubles),
            needless=len(history.needless),
            crashed=len(self._fleet.crashed),
            killed=len(self._fleet.killed),
            recovery_s=dict(recovery),
        )

    def _extra(self, strike: Strike, limits: Limits, burst: int, largest: int) -> Extra:
        """What docs/guarantees allows for it."""
        fault, rate = FAULTS.get(strike.event), limits.rate(strike.at)
        starts = 0.0
        if fault is not None and fault.forgets:
            starts += max(burst, largest) + HORIZON_S * rate
        if fault is not None and fault.is_outage and self._policy == "share":
            count = len(self._fleet.places)
            starts += (count - 1) * largest + rate * RETURN_S * (count - 1) / count
        return Extra(strike.at, strike.over + RETURN_S, starts)


def run(
    seed: int,
    workers: int,
    seconds: float,
    policy: str,
    log: Callable[[str], object],
    load: str = "task",
    include: Sequence[str] = (),
) -> Report:
    """Start everything, let faults happen for so many seconds, and end everything.

    Args:
        seed: of the faults.
        workers: how many at a time, of two processes each.
        seconds: how long.
        policy: `share` or `hold`.
        log: takes a line for each fault.
        load: what they have to do, one of `LOADS`.
        include: modules that the workers load, beside those of the load.

    Returns:
        The report.

    Raises:
        RuntimeError: there is no Redis to run.
    """
    sentinels, todo = Sentinels(), LOADS[load]
    conf = {
        "global_rate_redis_options": {"sentinel_kwargs": sentinels.options},
        "global_rate_on_outage": policy,
        **todo.conf,
    }
    try:
        with fleet_of(
            workers,
            todo.rate,
            sentinels=sentinels.start(),
            conf=conf,
            queues=todo.queues,
            include=[*todo.include, *include],
        ) as fleet:
            return Chaos(fleet, todo, seed, policy, log).run(seconds)
    finally:
        sentinels.close()
