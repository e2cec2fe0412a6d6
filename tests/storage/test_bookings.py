"""What a booking leaves behind: its serial, the way back, its expiry, and every digit of its instants."""

from __future__ import annotations

import time
from fractions import Fraction
from math import ceil

import pytest
import redis

from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.reservation import Reservation
from celery_global_rate.storage.scripts import GIVE_BACK, RESERVE

from .replay import HORIZON_US, NOW, Bucket, slot, slots

SECOND, DAY = 1_000_000, 86_400_000_000
PER_S, PER_DAY = Limit(SECOND), Limit(DAY)
PER_10_MS = Limit(10_000)
YEAR_2200 = 7_258_118_399_999_999


# serials


def test_a_serial_is_the_clock_and_grows_where_the_clock_does_not(bucket: Bucket) -> None:
    serials = [bucket.reserve(now, PER_10_MS).seq for now in (NOW, NOW, NOW, NOW + 50_000, NOW - SECOND)]

    assert serials == [NOW, NOW + 1, NOW + 2, NOW + 50_000, NOW + 50_001]


def test_giving_back_is_a_booking_with_a_serial_of_its_own(bucket: Bucket) -> None:
    given = bucket.reserve(NOW, PER_10_MS, 5)
    bucket.give_back(NOW, given)

    assert given.seq + 1 == int(bucket.fields["seq"])
    assert given.seq + 2 == bucket.reserve(NOW, PER_10_MS).seq


# giving back


@pytest.mark.parametrize("used", [0, 1, 4])
def test_giving_back_frees_exactly_the_tail(bucket: Bucket, used: int) -> None:
    limit = Limit(9_999, 999_983)
    given = bucket.reserve(NOW, limit, 5)
    given.used = used

    assert bucket.give_back(NOW, given)
    assert slots(given)[used:] == slots(bucket.reserve(NOW, limit, given.left, "two"))


def test_what_was_used_of_a_reservation_is_not_free_again(bucket: Bucket) -> None:
    given = bucket.reserve(NOW, PER_10_MS, 5)
    given.used = 2

    assert bucket.give_back(NOW, given)
    assert bucket.reserve(NOW, PER_10_MS).first_us == NOW + 20_000


def test_nothing_is_given_back_once_others_have_booked(bucket: Bucket) -> None:
    given = bucket.reserve(NOW, PER_10_MS, 5)
    bucket.reserve(NOW, PER_10_MS, 1, "two")
    before = bucket.fields

    assert not bucket.give_back(NOW, given)
    assert before == bucket.fields


def test_a_refused_call_of_others_does_not_hinder_giving_back(bucket: Bucket) -> None:
    given = bucket.reserve(NOW, PER_S)
    bucket.reserve(NOW, PER_S, 1, "two")

    assert bucket.give_back(NOW, given)
    assert slots(bucket.reserve(NOW, PER_S, 1, "two")) == [NOW]


def test_given_back_twice_is_given_back_once(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_10_MS, 2, "two")
    given = bucket.reserve(NOW, PER_10_MS, 3)

    assert [bucket.give_back(NOW, given), bucket.give_back(NOW, given)] == [True, False]
    assert bucket.reserve(NOW, PER_10_MS).first_us == NOW + 20_000


def test_nothing_is_given_back_to_a_bucket_that_was_lost(bucket: Bucket) -> None:
    given = bucket.reserve(NOW, PER_10_MS, 5)
    bucket.lose()

    assert not bucket.give_back(NOW, given)
    assert bucket.fields == {}
    bucket.reserve(NOW + SECOND, PER_10_MS, 2, "two")
    assert not bucket.give_back(NOW + SECOND, given)


def test_given_back_after_a_step_back_the_lead_shrinks_by_the_tail(bucket: Bucket) -> None:
    given = bucket.reserve(NOW, PER_10_MS, 11)
    given.used = 4
    stepped = NOW - 60 * SECOND

    assert bucket.give_back(stepped, given)
    assert stepped + 40_000 == bucket.reserve(stepped, PER_10_MS).first_us
    assert stepped - SECOND + 50_000 == bucket.reserve(stepped - SECOND, PER_10_MS).first_us


def test_giving_back_without_an_injected_time_asks_the_server(bucket: Bucket) -> None:
    given = bucket.reserve(None, PER_10_MS, 5)
    given.used = 1

    assert bucket.give_back(None, given)
    assert [slot(given, 1)] == slots(bucket.reserve(None, PER_10_MS))


# expiry


def rest_ms(bucket: Bucket, limit: Limit, last: Fraction, now_us: int) -> float:
    """Milliseconds until the bucket is full for a limit, and a minute or two horizons."""
    interval = limit.interval_us + Fraction(limit.interval_ps, 1_000_000)
    return float(last + limit.burst * interval - now_us + max(60 * SECOND, 2 * bucket.horizon_us)) / 1000


@pytest.mark.parametrize("horizon_us", [HORIZON_US, 100 * SECOND])
@pytest.mark.parametrize("limit", [PER_10_MS, PER_S, PER_DAY, Limit(DAY, 999_999, 300), Limit(142_857, 142_858, 7)])
def test_a_bucket_lives_a_minute_longer_than_it_takes_to_fill(bucket: Bucket, limit: Limit, horizon_us: int) -> None:
    bucket.horizon_us = horizon_us
    before = time.monotonic()
    last = slots(bucket.reserve(NOW, limit, 3))[-1]
    ttl_ms, passed_ms = bucket.ttl_ms, (time.monotonic() - before) * 1000
    at_least_ms = rest_ms(bucket, limit, last, NOW)

    assert at_least_ms - passed_ms - 1 <= ttl_ms <= at_least_ms + 1


def test_the_expiry_of_a_bucket_reckons_with_its_burst_and_with_long_horizons(bucket: Bucket) -> None:
    bucket.reserve(NOW, Limit(SECOND, burst=500), 500)
    assert 560_000 - 5_000 <= bucket.ttl_ms <= 560_000

    bucket.lose()
    bucket.horizon_us = 500 * SECOND
    bucket.reserve(NOW, PER_S, 400)
    assert 1_400_000 - 5_000 <= bucket.ttl_ms <= 1_400_000


def test_a_bucket_of_a_fast_limit_lives_a_minute(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_10_MS)

    assert 60_010 - 5_000 <= bucket.ttl_ms <= 60_010


def test_an_expiry_is_never_shortened_by_a_faster_limit_and_is_prolonged_by_a_slower_one(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_DAY)
    bucket.reserve(NOW + 50_000, PER_10_MS)
    assert 86_460_000 - 5_000 <= bucket.ttl_ms <= 86_460_000

    bucket.reserve(NOW + 3 * DAY, Limit(2 * DAY))
    assert bucket.ttl_ms > 2 * 86_400_000


def test_a_bucket_outlives_the_wait_of_a_slower_limit_that_it_refused(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_10_MS)
    bucket.reserve(NOW, PER_DAY)

    assert bucket.ttl_ms > 86_400_000, "or a slot a day is given out again after a minute"


def test_an_expiry_outlives_giving_back(bucket: Bucket) -> None:
    given = bucket.reserve(NOW, PER_DAY)
    bucket.give_back(NOW, given)

    assert bucket.ttl_ms >= 86_460_000 - 5_000


# digits


def test_no_digit_is_lost_up_to_the_year_2200(bucket: Bucket) -> None:
    given = bucket.reserve(YEAR_2200, Limit(33_333, 333_334, 3), 4)
    expected = {"slot": YEAR_2200 + 33_333, "slot_ps": 333_334, "lead": 33_333, "seq": YEAR_2200, "given": 4}

    assert Reservation(YEAR_2200, YEAR_2200 - 66_667, 333_332, 33_333, 333_334, 4, YEAR_2200, 1) == given
    assert {name: str(value) for name, value in expected.items()} == bucket.fields


def test_no_digit_of_a_waiting_time_is_lost(bucket: Bucket) -> None:
    bucket.reserve(YEAR_2200, PER_S)

    assert bucket.client.zscore(bucket.waiting_key, "one") == YEAR_2200 + SECOND + HORIZON_US


def test_the_worker_reckons_the_same_slots_rounded_up(bucket: Bucket) -> None:
    given = bucket.reserve(YEAR_2200, Limit(333, 333_334, 50), 100)

    for index in range(given.count + 1):
        assert ceil(slot(given, index)) == given.slot_us(index)


# loading


def test_a_flushed_script_cache_is_not_noticed(bucket: Bucket) -> None:
    given = bucket.reserve(NOW, PER_10_MS, 2)
    bucket.client.script_flush()

    assert bucket.give_back(NOW, given)
    bucket.client.script_flush()
    assert slots(bucket.reserve(NOW, PER_10_MS)) == [NOW]


def test_redis_knows_a_script_by_the_sha_that_the_worker_reckons(redis_client: redis.Redis) -> None:
    assert [RESERVE.sha, GIVE_BACK.sha] == [redis_client.script_load(script.source) for script in (RESERVE, GIVE_BACK)]
