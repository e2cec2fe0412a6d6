"""A bucket on a real server, run by any sources of the scripts, and histories that it and the oracle live through."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Any

import redis

from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.redis_clock import LAST_US
from celery_global_rate.limits.reservation import Reservation
from celery_global_rate.storage.scripts import (
    GIVE_BACK,
    HEARTBEAT,
    RESERVE,
    SET_OVERRIDE,
    SYNC_OVERRIDES,
    bucket_key,
    give_back_call,
    heartbeat_call,
    news_channel,
    reserve_call,
    set_override_call,
    sync_overrides_call,
    waiting_key,
)

from ..limits.oracle import Answer, Oracle

NOW = 1_800_000_000_000_000
HORIZON_US, PATIENCE_US = 100_000, 5_000_000
PREFIX, NAME = "test", "tasks.add"
CHANNEL = news_channel(PREFIX, 9)
SOURCES = {
    "reserve": RESERVE.source,
    "give_back": GIVE_BACK.source,
    "set_override": SET_OVERRIDE.source,
    "sync_overrides": SYNC_OVERRIDES.source,
    "heartbeat": HEARTBEAT.source,
}


class Bucket:
    """Calls the scripts as a worker does, except that the caller may say what time it is."""

    def __init__(self, client: redis.Redis, sources: Mapping[str, str] = SOURCES) -> None:
        self.client = client
        self.horizon_us, self.patience_us, self.latest_us = HORIZON_US, PATIENCE_US, LAST_US
        self.key, self.waiting_key = bucket_key(PREFIX, NAME), waiting_key(PREFIX, NAME)
        self._reserve: Callable[..., Any] = client.register_script(sources["reserve"])
        self._give_back: Callable[..., Any] = client.register_script(sources["give_back"])
        self._set: Callable[..., Any] = client.register_script(sources["set_override"])
        self._keep: Callable[..., Any] = client.register_script(sources["sync_overrides"])
        self._beat: Callable[..., Any] = client.register_script(sources["heartbeat"])

    def reserve(
        self,
        now_us: int | None,
        limit: Limit,
        wanted: int = 1,
        worker: str = "one",
        override: str = "",
        awake_us: int = NOW,
    ) -> Reservation:
        count, *call = reserve_call(PREFIX, own(NAME, limit), wanted, worker, [override], awake_us)
        call[-7:-5], call[-1] = (self.horizon_us, self.patience_us), self.latest_us
        keys, args = call[: int(count)], call[int(count) :]
        return Reservation(*self._reserve(keys, args if now_us is None else [*args, now_us]))

    def give_back(self, now_us: int | None, reservation: Reservation) -> bool:
        """Give the slots back that are left."""
        count, *call = give_back_call(PREFIX, own(NAME, Limit(1)), reservation)
        keys, args = call[: int(count)], call[int(count) :]
        return bool(self._give_back(keys, args if now_us is None else [*args, now_us]))

    def set(
        self, now_us: int | None, change: Mapping[str, object], id: str = "a", late_us: int = 0
    ) -> tuple[bool, str]:
        """Request a change; whether it was written, and the override there is then."""
        entry = {"by": "me", "source": "test", "reason": "why", **change}
        count, *call = set_override_call(PREFIX, NAME, entry, id, late_us, CHANNEL)
        keys, args = call[: int(count)], call[int(count) :]
        written, _, override = self._set(keys, args if now_us is None else [*args, now_us])
        return bool(written), override

    def keep(self, overrides: Mapping[str, str], era: str = "new") -> tuple[str | None, int, dict[str, str]]:
        """Send what a worker knows; returns the era, its changes, and all overrides there are then."""
        count, *call = sync_overrides_call(PREFIX, era, overrides)
        _, id, changes, pairs = self._keep(call[: int(count)], call[int(count) :])
        return id, int(changes or 0), dict(zip(pairs[::2], pairs[1::2]))

    def beat(self, now_us: int, worker: str, life_s: float = 30) -> int:
        """A worker lives; how many do."""
        count, *call = heartbeat_call(PREFIX, worker, life_s, CHANNEL)
        return int(self._beat(call[: int(count)], [*call[int(count) :], now_us]))

    def lose(self) -> None:
        """Lose the keys, as when Redis restarts empty."""
        self.client.delete(self.key, self.waiting_key)

    @property
    def fields(self) -> dict[str, str]:
        fields: dict[Any, Any] = self.client.hgetall(self.key)
        return fields

    @property
    def ttl_ms(self) -> int:
        return self.client.pttl(self.key)


def slot(reservation: Reservation, index: int = 0) -> Fraction:
    """A slot of a reservation, exactly, in epoch us."""
    interval = reservation.interval_us + Fraction(reservation.interval_ps, 1_000_000)
    return reservation.first_us + Fraction(reservation.first_ps, 1_000_000) + index * interval


def slots(reservation: Reservation) -> list[Fraction]:
    """All slots of a reservation."""
    return [slot(reservation, index) for index in range(reservation.count)]


@dataclass(frozen=True)
class Step:
    """Something that happens to a bucket.

    Attributes:
        gap_us: time since the step before; negative where the clock steps back.
        edge_us: where set, time goes on to this long after the instant at which the next slot enters the horizon.
        verb: "reserve", "give back", "lose" or "script flush".
        pick: which of the late reservations to give back, and how much of it.
    """

    limit: Limit
    gap_us: int = 0
    edge_us: int | None = None
    verb: str = "reserve"
    wanted: int = 1
    worker: str = "one"
    pick: int = 0


def replay(bucket: Bucket, steps: Iterable[Step], start_us: int = NOW) -> Iterator[tuple[Reservation, Limit, int]]:
    """Live through a history; say which slots were given out, and how many of the last ones were taken back.

    Every answer of the script must be the oracle's.
    """
    oracle = Oracle(bucket.horizon_us, bucket.patience_us)
    late: list[tuple[Reservation, Limit]] = []
    now = start_us
    for number, step in enumerate(steps):
        now += step.gap_us
        if step.edge_us is not None:
            now = max(now, ceil(oracle.next_slot(now, step.limit)) - bucket.horizon_us + step.edge_us)
        if step.verb == "lose":
            oracle.lose()
            bucket.lose()
        elif step.verb == "script flush":
            bucket.client.script_flush()
        elif step.verb == "give back" and late:
            reservation, limit = late[-1 - step.pick % len(late)]
            count = 1 + step.pick % reservation.left
            reservation.used = reservation.count - count
            expected = oracle.give_back(now, limit, count, reservation.seq)
            assert expected == bucket.give_back(now, reservation), (number, step)

            if expected:
                yield reservation, limit, -count
        elif step.verb == "reserve":
            answer = oracle.reserve(now, step.limit, step.wanted, step.worker)
            reservation = bucket.reserve(now, step.limit, step.wanted, step.worker)
            actual = Answer(slot(reservation), reservation.count, reservation.seq, reservation.waiting)
            assert answer == actual, (number, step)

            if reservation.count:
                late = [*late[-3:], (reservation, step.limit)]
            yield reservation, step.limit, reservation.count


def random_limit(draw: random.Random) -> Limit:
    """Even and odd intervals, from 1 ps to a day, with and without a burst."""
    us = draw.choice([1_000_000, 142_857, 10, 86_400_000_000, draw.randrange(0, 30), draw.randrange(1, 300_000)])
    ps = draw.choice([0, 142_858, 999_999, draw.randrange(1, 1_000_000)])
    return Limit(us, ps or int(not us), draw.choice([1, 1, 2, draw.randrange(1, 50), 2000]))


def random_history(seed: int, length: int) -> list[Step]:
    """A history that visits the edges, the same for the same seed."""
    draw = random.Random(seed)
    limits = [random_limit(draw), random_limit(draw)]
    gaps: list[Callable[[], int]] = [
        lambda: 0,
        lambda: draw.randrange(0, 1000),
        lambda: draw.randrange(0, 300_000),
        lambda: draw.randrange(0, 20_000_000),
        lambda: draw.choice([-1, 1]) * draw.randrange(0, 50_000_000),
    ]
    verbs = ["reserve"] * 12 + ["give back"] * 4 + ["lose"]
    return [
        Step(
            draw.choice(limits[: 1 + (draw.random() < 0.2)]),
            draw.choices(gaps, [6, 4, 4, 2, 1])[0](),
            draw.choice([None, None, None, -1, 0]),
            draw.choice(verbs),
            draw.choice([1, 2, 5, 1500]),
            draw.choice(["one", "two", "three", "four"]),
            draw.randrange(0, 100),
        )
        for _ in range(length)
    ]
