"""A plain limit, with the scripts of version 0.2.0 and with those of today: workers of both share a bucket."""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import pytest
import redis

from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.reservation import Reservation
from celery_global_rate.storage.scripts import GIVE_BACK, RESERVE, give_back_call, reserve_call

from ..conftest import Figures

FOLDER = Path(__file__).parent / "released_0_2_0"
LIMITS = [
    *(Limit(10_000), Limit(50_000), Limit(333_333, 333_333, 5), Limit(1_000, 0, 50), Limit(60_000_000)),
    Limit(7, 123_456),
]
NOW_US = 1_800_000_000_000_000
FOREVER_US = 10**15


def released(verb: str) -> str:
    """A script as that version ran it."""
    return "\n".join((FOLDER / f"{name}.lua").read_text("utf-8") for name in ("slots", "records", verb))


class Side:
    """One version's scripts, with keys of their own."""

    def __init__(self, client: redis.Redis, prefix: str, reserve: str, give_back: str) -> None:
        self.client = client
        self._prefix = prefix
        #: Those of reserve.lua: in that version, all but the last.
        self._arguments = None if reserve == RESERVE.source else -1
        self._reserve, self._give_back = client.script_load(reserve), client.script_load(give_back)

    def reserve(self, name: str, limit: Limit, wanted: int, worker: str, awake_us: int, *now_us: int) -> list[Any]:
        call = reserve_call(self._prefix, own(name, limit), wanted, worker, [""], awake_us)
        answer: list[Any] = self.client.evalsha(self._reserve, *call[: self._arguments], *now_us)  # type: ignore[arg-type]
        return answer

    def give_back(self, name: str, limit: Limit, reservation: Reservation, now_us: int) -> int:
        call = give_back_call(self._prefix, own(name, limit), reservation)
        answer: int = self.client.evalsha(self._give_back, *call, now_us)  # type: ignore[arg-type]
        return answer


@pytest.fixture
def sides(redis_client: redis.Redis) -> list[Side]:
    """That version, and this one."""
    return [
        Side(redis_client, "then", released("reserve"), released("give_back")),
        Side(redis_client, "now", RESERVE.source, GIVE_BACK.source),
    ]


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_plain_limit_has_the_same_answers(sides: list[Side], count: int) -> None:
    """Random calls of five workers for four buckets, whose limits change, with give-backs and long pauses."""
    chance = random.Random(count)
    now_us = NOW_US
    booked: list[tuple[str, Limit, list[Reservation], int]] = []
    for _ in range(count):
        now_us += chance.choice([0, chance.randrange(1000), chance.randrange(100_000), chance.randrange(10_000_000)])
        if booked and chance.random() < 0.15:
            name, limit, pair, used = booked.pop(chance.randrange(len(booked)))
            for reservation in pair:
                reservation.used = used
            answers: list[Any] = [side.give_back(name, limit, it, now_us) for side, it in zip(sides, pair)]
        else:
            name, limit = f"b{chance.randrange(4)}", chance.choice(LIMITS)
            call = chance.choice([1, 1, 3, 20, 1000]), f"w{chance.randrange(5)}"
            awake_us = chance.choice([FOREVER_US, chance.randrange(1_000_000)])
            answers = [side.reserve(name, limit, *call, awake_us, now_us) for side in sides]
            pair = [Reservation.read(answer) for answer in answers]
            if pair[0].count:
                booked = [*booked[-20:], (name, limit, pair, chance.randrange(pair[0].count))]
        assert answers[0] == answers[1]


@pytest.mark.long
def test_a_plain_limit_takes_no_longer(sides: list[Side], figures: Figures) -> None:
    """Time of the script by Redis' own count, in seven pairs of 4000 calls each: a tenth more at the most."""
    costs: list[tuple[float, ...]] = []
    for _ in range(7):
        pair = []
        for side in sides:
            side.client.config_resetstat()
            for _ in range(4000):
                side.reserve("t", LIMITS[0], 5, "w", FOREVER_US)
            stats: dict[str, Any] = side.client.info("commandstats")
            pair.append(stats["cmdstat_evalsha"]["usec_per_call"])
        costs.append(tuple(pair))
    ratio = statistics.median(now / then for then, now in costs)
    figures(f"a plain limit: {statistics.median(now for _, now in costs):.1f} us a call, {ratio:.3f} of version 0.2.0")

    assert ratio <= 1.1
