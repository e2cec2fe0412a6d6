"""What the scripts do."""

from __future__ import annotations

from .setup import Setup
from .state import Call, GiveBack, Redis


def reserve(setup: Setup, redis: Redis, call: Call) -> tuple[Redis, tuple[int, ...]]:
    """reserve.lua: the slots that it gives out, none if a higher override is stored."""
    version = call.version if "lower override" in setup.faults else max(redis.version, call.version)
    redis = redis._replace(version=version)
    if version > call.version and "override ignored" not in setup.faults:
        return redis, ()
    redis, first = next_slot(setup, redis, call)
    interval = setup.intervals[call.version]
    count = call.wanted if "beyond the horizon" in setup.faults else (setup.horizon - first) // interval + 1
    slots = tuple([first + number * interval for number in range(min(call.wanted, count))])
    if slots:
        redis = redis._replace(last=slots[-1], lead=max(0, slots[-1]), seq=redis.seq + 1)
    return redis, slots


def next_slot(setup: Setup, redis: Redis, call: Call) -> tuple[Redis, int]:
    """slots.lua: an interval after the last slot, or as far back as the burst reaches, or the floor."""
    interval = setup.intervals[call.version]
    full = 0 if call.has_floor else (1 - setup.burst) * interval
    if redis.last is None:
        return redis, full
    last = redis.last if "step unseen" in setup.faults else last_slot(redis.last, redis.lead)
    redis = redis._replace(last=last)
    return redis, max((min(last, 0) if "clipped" in setup.faults else last) + interval, full)


def last_slot(last: int, lead: int) -> int:
    """slots.lua: where it is further ahead than when it was written, the clock has stepped back."""
    return min(last, lead)


def take_back(setup: Setup, redis: Redis, sent: GiveBack) -> Redis:
    """give_back.lua."""
    if redis.last is None or (redis.seq != sent.seq and "serial unchecked" not in setup.faults):
        return redis
    last = last_slot(redis.last, redis.lead) - sent.slots * sent.interval
    seq = redis.seq if "serial unmoved" in setup.faults else redis.seq + 1
    return redis._replace(last=last, lead=max(0, last), seq=seq)
