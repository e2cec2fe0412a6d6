"""Fixed windows on the real scripts: at most N in each, none of them lost, and what is given back."""

from __future__ import annotations

import pytest
import redis

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.limit import Limit

from .lanes import Lanes
from .replay import NOW

S = 1_000_000
#: A window of ten seconds begins here.
BEGIN = NOW - NOW % (10 * S) + 10 * S
GUARD = 50_000


@pytest.fixture
def lanes(redis_client: redis.Redis) -> Lanes:
    return Lanes(redis_client)


def fixed(rate: str, name: str = "quota") -> Bucket:
    limit = Limit.in_windows(rate)
    assert limit.calendar
    return Bucket(name, f"fixed-{limit.calendar.name}", limit)


def test_a_window_has_as_many_slots_as_declared_and_the_next_one_again(lanes: Lanes) -> None:
    lane = (fixed("5/10s"),)
    first = lanes.reserve(BEGIN + 3 * S, lane, 3)
    assert (first.count, first.starts_us) == (3, [BEGIN + 3 * S] * 3)
    assert first.untils_us == [BEGIN + 10 * S - GUARD // 2] * 3
    second = lanes.reserve(BEGIN + 4 * S, lane, 3)
    assert (second.count, second.again_us) == (2, BEGIN + 10 * S)
    assert lanes.reserve(BEGIN + 9 * S, lane, 1).count == 0
    third = lanes.reserve(BEGIN + 10 * S, lane, 9)
    assert (third.count, third.again_us) == (5, BEGIN + 20 * S)


def test_what_is_left_at_the_end_of_a_window_is_not_granted_and_the_next_one_begins_ahead(lanes: Lanes) -> None:
    lane = (fixed("5/10s"),)
    assert lanes.reserve(BEGIN + 10 * S - GUARD - 1, lane, 1).starts_us == [BEGIN + 10 * S - GUARD - 1]
    ahead = lanes.reserve(BEGIN + 10 * S - GUARD, lane, 9)
    assert ahead.starts_us == [BEGIN + 10 * S] * 5
    assert ahead.untils_us == [BEGIN + 20 * S - GUARD // 2] * 5


def test_slots_come_back_to_their_window_and_not_to_a_state_that_was_lost(lanes: Lanes) -> None:
    lane = (fixed("5/10s"),)
    taken = lanes.reserve(BEGIN, lane, 5)
    taken.used = 3
    assert lanes.give_back(lane, taken) == [2]
    again = lanes.reserve(BEGIN + S, lane, 5)
    assert again.count == 2
    lanes.lose(*lane)
    assert lanes.reserve(BEGIN + 2 * S, lane, 1).count == 1
    assert lanes.give_back(lane, again) == [0]
    assert lanes.reserve(BEGIN + 2 * S, lane, 9).count == 4


def test_beside_a_smooth_limit_both_hold(lanes: Lanes) -> None:
    lane = (Bucket("quota", "smooth", Limit(100_000)), fixed("5/10s"))
    starts = []
    for at_us in range(BEGIN, BEGIN + 19 * S, 50_000):
        starts += lanes.reserve(at_us, lane, 9).starts_us
    assert starts == [BEGIN + base + step * 100_000 for base in (0, 10 * S) for step in range(5)]
