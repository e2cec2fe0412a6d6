"""Sliding windows on the real scripts: at most N in any period, none lost, and a log that stays small."""

from __future__ import annotations

import pytest
import redis

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.limit import Limit
from celery_global_rate.storage.scripts import log_key, read_log

from .lanes import Lanes, Life
from .replay import NOW, PREFIX

S = 1_000_000


@pytest.fixture
def lanes(redis_client: redis.Redis) -> Lanes:
    return Lanes(redis_client)


def sliding(rate: str, name: str = "quota") -> Bucket:
    limit = Limit.in_any(rate)
    assert limit.window
    return Bucket(name, limit.window.key, limit)


def span_us(bucket: Bucket) -> int:
    return bucket.limit.span_us


def test_the_next_slot_is_when_the_oldest_of_them_has_left(lanes: Lanes) -> None:
    lane = (sliding("5/10s"),)
    span = span_us(lane[0])
    assert lanes.reserve(NOW, lane, 3).starts_us == [NOW] * 3
    second = lanes.reserve(NOW + 4 * S, lane, 9)
    assert (second.starts_us, second.again_us) == ([NOW + 4 * S] * 2, NOW + span)
    ahead = lanes.reserve(NOW + span - 60_000, lane, 9)
    assert (ahead.starts_us, ahead.again_us) == ([NOW + span] * 3, NOW + 4 * S + span)


def test_slots_come_back_in_the_place_of_the_oldest(lanes: Lanes) -> None:
    lane = (sliding("5/10s"),)
    taken = lanes.reserve(NOW, lane, 5)
    taken.used = 3
    assert lanes.give_back(lane, taken, NOW + S) == [2]
    assert lanes.reserve(NOW + S, lane, 9).count == 2
    again = lanes.reserve(NOW + span_us(lane[0]), lane, 9)
    assert again.count == 3
    lanes.lose(*lane)
    assert lanes.give_back(lane, again, NOW + 11 * S) == [0]


@pytest.mark.long
def test_a_log_of_a_million_is_small(lanes: Lanes, redis_client: redis.Redis) -> None:
    """All slots of a thousandth of the period are one entry: 20 kB, and no more than that share of them is lost."""
    bucket = sliding("1000000/100s")
    lane = (bucket,)
    count = 0
    for step in range(0, 100 * S, 10_000):
        count += lanes.reserve(NOW + step, lane, 100).count
    key = log_key(PREFIX, bucket.name, bucket.window)
    log = read_log([str(word).encode() for word in redis_client.lrange(key, 0, -1)], None)
    assert log == sorted(log)
    assert sum(slots for _, slots in log) == 1_000_000
    entries, size = redis_client.llen(key) // 2, redis_client.memory_usage(key) or 0
    assert count == 1_000_000
    assert entries <= 1001
    assert size <= 20_000


def test_what_is_left_of_the_log_of_a_lost_bucket_counts_for_nothing(lanes: Lanes) -> None:
    """An entry that has expired would let one more start with each of the N; and one that has not, would stay."""
    lane = (sliding("5/10s"),)
    lanes.reserve(NOW, lane, 3)
    for now in (NOW + 60 * S, NOW + 61 * S):
        lanes.lose_hash(*lane)
        assert lanes.reserve(now, lane, 9).count == 5
        assert lanes.logs(*lane) == [[(now, 5)]]
        assert lanes.reserve(now, lane, 9).count == 0
        lanes.lose_log(*lane)
        assert lanes.reserve(now, lane, 9).count == 5
        assert lanes.reserve(now, lane, 9).count == 0


def live(lanes: Lanes, seeds: range, length: int = 80) -> tuple[int, int]:
    """How many starts there were, and in how many lives a period had exactly N."""
    starts = full = 0
    for seed in seeds:
        lanes.client.flushdb()
        life = Life(lanes, seed, fixed=0.1, sliding=0.7)
        life.live(length)
        starts += life.used
        full += life.spare == 0
    return starts, full


def test_no_period_has_more_than_n_starts_and_many_have_n(lanes: Lanes) -> None:
    starts, full = live(lanes, range(12))

    assert starts > 400
    assert full > 6
