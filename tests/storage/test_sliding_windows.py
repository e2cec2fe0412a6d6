"""Sliding windows on the real scripts: at most N in any period, none lost, and a log that stays small."""

from __future__ import annotations

import heapq
import random
import time
from dataclasses import replace

import pytest
import redis

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.lane_reservation import LaneReservation
from celery_global_rate.limits.limit import Limit
from celery_global_rate.storage.scripts import bucket_key, log_key, read_log

from ..conftest import Figures
from .lanes import Lane, Lanes, live_all
from .mutate import SLIDING_MUTANTS, Mutant, complaint, originals, sentences, sources
from .replay import NOW, PREFIX

S, MS = 1_000_000, 1_000


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


def test_a_slot_stays_for_the_period_and_d_to_the_microsecond(lanes: Lanes) -> None:
    lane, grace_us = (sliding("100/10s"),), 25 * MS
    lanes.reserve(NOW, lane, 100)
    for before_us in (999, 1):
        answer = lanes.reserve(NOW + 10 * S + grace_us - before_us, lane)
        assert answer.starts_us == [NOW + 10 * S + grace_us]
        assert answer.untils_us == [NOW + 10 * S + 2 * grace_us]


def test_where_a_grace_is_over_half_a_per_cent_of_the_period_a_slot_stays_for_the_period(lanes: Lanes) -> None:
    lane = (sliding("5/2s"),)
    lanes.reserve(NOW, lane, 9)
    assert lanes.reserve(NOW + S, lane).again_us == NOW + 2 * S


def test_a_grant_is_at_most_twice_the_fair_share_and_those_that_leave_soon_count(lanes: Lanes) -> None:
    """A hundred for four workers: fifty; then half of what is left. The same for 97 that leave in a moment."""
    lane = (sliding("100/10s"),)
    for worker in ("two", "three", "four"):
        lanes.reserve(NOW, lane, 1, worker)
    lanes.lose(*lane)

    assert lanes.reserve(NOW, lane, 99, "one").count == 50
    assert lanes.reserve(NOW, lane, 99, "two").count == 25
    while lanes.reserve(NOW, lane, 99, "two").count:
        pass
    soon = NOW + span_us(lane[0]) - 80 * MS
    for worker in ("two", "three", "four"):
        lanes.reserve(soon, lane, 1, worker)
    assert lanes.reserve(soon, lane, 99, "one").count == 48


def test_a_start_waits_no_longer_for_a_slot_in_step_of_another_limit_than_that_may_be_old(lanes: Lanes) -> None:
    """T = 30 ms, and slots are at -40, -10, 20 ms of when the quota has one: -10 is too old by 2.5 ms, 20 too late."""
    shared, quota = Bucket("shared", "smooth", Limit(30 * MS), is_crossed=True), sliding("5/1s")
    lanes.reserve(NOW - S, (quota,), 5)
    lanes.reserve(NOW - 70 * MS, (shared,))
    answer = lanes.reserve(NOW - 45 * MS, (shared, quota))
    assert answer.slots == [(NOW - 7500, NOW)]


def test_slots_of_one_cell_are_one_entry_at_the_latest_of_them(lanes: Lanes) -> None:
    """2000 in 2 s: a cell is 2 ms."""
    quota, smooth = sliding("2000/2s"), Bucket("smooth", "", Limit(500))
    lanes.reserve(NOW, (smooth, quota), 3)
    assert lanes.logs(quota) == [[(NOW + 1000, 3)]]
    lanes.reserve(NOW + 1500, (quota,), 9)
    assert lanes.logs(quota) == [[(NOW + 1500, 12)]]
    lanes.reserve(NOW + 2000, (quota,), 9)
    assert lanes.logs(quota) == [[(NOW + 1500, 12), (NOW + 2000, 9)]]


@pytest.mark.parametrize("rate", ["100/10s", "2000/2s", "2000/5s"])
def test_a_log_has_no_more_than_a_thousand_entries(lanes: Lanes, rate: str) -> None:
    """One for each cell of P + D, which is five more where D is half a per cent of P, and one that is half in it."""
    bucket = sliding(rate)
    key, period_us, most = log_key(PREFIX, bucket.name, bucket.window), bucket.limit.span_us // S * S, 0
    for step in range(1200):
        lanes.reserve(NOW + step * period_us // 1000, (bucket,), 2)
        most = max(most, int(lanes.client.llen(key)) // 2)
    assert min(bucket.limit.burst, 1000) / 2 <= most <= min(bucket.limit.burst, 1006)


# a clock that steps back


def test_a_clock_that_steps_back_neither_gives_slots_nor_keeps_them_until_it_has_caught_up(lanes: Lanes) -> None:
    """Time goes on from the last booking, at 4 s: the first three leave 6 s after the step was seen."""
    lane = (sliding("5/10s"),)
    lanes.reserve(NOW, lane, 3)
    before = lanes.reserve(NOW + 4 * S, lane, 9)
    back = NOW - 3600 * S
    for later in (0, 3 * S, 5 * S):
        answer = lanes.reserve(back + later, lane, 9)
        assert (answer.count, answer.again_us) == (0, back + span_us(lane[0]) - 4 * S)
    answer = lanes.reserve(back + span_us(lane[0]) - 4 * S, lane, 9)
    assert answer.count == 3
    assert lanes.give_back(lane, before, answer.now_us) == [0], "booked before the step"
    assert lanes.give_back(lane, answer, answer.now_us) == [3]


def test_a_slot_ahead_is_no_step_back(lanes: Lanes) -> None:
    lane = Bucket("smooth", "", Limit(90 * MS)), sliding("5/10s")
    lanes.reserve(NOW, lane)
    assert lanes.reserve(NOW + 10 * MS, lane).starts_us == [NOW + 90 * MS]
    lanes.reserve(NOW + 20 * MS, lane[1:])
    assert lanes.fields(lane[1])[0]["shift"] == "0"
    lanes.reserve(NOW + 5 * MS, lane[1:])
    assert lanes.fields(lane[1])[0]["shift"] == str(15 * MS)


# giving back


def test_what_comes_back_leaves_the_log_in_any_order(lanes: Lanes) -> None:
    lane = (sliding("5/10s"),)
    given = [lanes.reserve(NOW + number * S, lane, 2) for number in range(2)]
    assert lanes.give_back(lane, given[1], NOW + 2 * S) == [2]
    assert lanes.logs(*lane) == [[(NOW, 2)]]
    given.append(lanes.reserve(NOW + 3 * S, lane, 2))
    assert lanes.give_back(lane, given[0], NOW + 4 * S) == [2]
    assert lanes.logs(*lane) == [[(NOW + 3 * S, 2)]]
    assert lanes.give_back(lane, given[2], NOW + 4 * S) == [2]
    assert lanes.reserve(NOW + 5 * S, lane, 9).count == 5


def test_the_entry_goes_that_is_not_before_a_slot(lanes: Lanes) -> None:
    """The first of two slots stands in the log at 60 ms, where another's is. That one stays, and none at 70 ms."""
    quota = sliding("5/10s")
    first, second = (Bucket(f"{ms} ms", "", Limit(ms * MS)) for ms in (60, 70))
    lanes.reserve(NOW - S, (quota,))
    lanes.reserve(NOW, (first,))
    assert lanes.reserve(NOW, (first, quota)).starts_us == [NOW + 60 * MS]
    given = lanes.reserve(NOW, (second, quota), 2)
    assert given.starts_us == [NOW, NOW + 70 * MS]
    assert lanes.logs(quota) == [[(NOW - S, 1), (NOW + 60 * MS, 2), (NOW + 70 * MS, 1)]]
    assert lanes.give_back((second, quota), given, NOW + S) == [2, 2]
    assert lanes.logs(quota) == [[(NOW - S, 1), (NOW + 60 * MS, 1)]]


def test_no_more_comes_back_than_is_booked(lanes: Lanes) -> None:
    """A worker never sends it twice: here, the repeat takes another's slot, and then there are no more."""
    lane = (sliding("9/10s"),)
    lanes.reserve(NOW - S, lane)
    given = lanes.reserve(NOW, lane, 3)
    lanes.reserve(NOW + MS, lane)
    assert [lanes.give_back(lane, given, NOW + S) for _ in range(3)] == [[3], [1], [0]]
    assert lanes.logs(*lane) == [[(NOW - S, 1)]]


def test_each_of_two_takes_back_in_its_own_log(lanes: Lanes) -> None:
    lane = sliding("5/10s"), sliding("8/15s", "other")
    given = lanes.reserve(NOW, lane, 2)
    lanes.reserve(NOW + S, lane[1:], 1)
    assert lanes.give_back(lane, given, NOW + 2 * S) == [2, 2]
    assert lanes.logs(*lane) == [[], [(NOW + S, 1)]]


def test_nothing_comes_back_from_before_a_loss(lanes: Lanes) -> None:
    """Although there is an entry that it could be: another's, at 80 ms."""
    lane = Bucket("smooth", "", Limit(40 * MS)), sliding("5/10s")
    for lose in (lanes.lose, lanes.lose_hash, lanes.lose_log):
        lanes.lose(*lane)
        lanes.reserve(NOW, lane)
        given = lanes.reserve(NOW, lane)
        lose(lane[1])
        assert lanes.give_back(lane[1:], replace(given, slots=[given.slots[0][1:]]), NOW) == [0]
        lanes.reserve(NOW + 5, lane[1:])
        lanes.reserve(NOW + 5, lane)
        assert lanes.logs(lane[1]) == [[(NOW + 5, 1), (NOW + 80 * MS, 1)]]
        assert lanes.give_back(lane, given, NOW + S)[1] == 0


# what is kept, and for how long


def test_both_keys_live_a_minute_longer_than_the_last_slot_counts(lanes: Lanes) -> None:
    (bucket,) = lane = (sliding("5/10s"),)
    before = time.monotonic()
    lanes.reserve(NOW, lane, 1)
    keys = bucket_key(PREFIX, bucket.name, bucket.window), log_key(PREFIX, bucket.name, bucket.window)
    left_ms = [lanes.client.pttl(key) for key in keys]
    passed_ms = (time.monotonic() - before) * 1000
    assert all(70_000 - passed_ms - 1 <= each <= 70_000 for each in left_ms)


@pytest.mark.long
@pytest.mark.parametrize("rate", ["100/10s", "1000/10s", "1000000/100s"])
def test_the_script_takes_no_longer_for_a_long_log(
    lanes: Lanes, redis_client: redis.Redis, figures: Figures, rate: str
) -> None:
    """All slots of a thousandth of the period are one entry, so a log has 20 kB at the most."""
    (bucket,) = lane = (sliding(rate),)
    number, period_us = bucket.limit.burst, bucket.limit.span_us // S * S
    calls, count, now = min(number, 10_000), 0, NOW
    for call in range(calls):
        now = NOW + call * period_us // calls
        count += lanes.reserve(now, lane, number // calls).count
    key = log_key(PREFIX, bucket.name, bucket.window)
    entries, size = redis_client.llen(key) // 2, redis_client.memory_usage(key) or 0
    log = read_log([str(word).encode() for word in redis_client.lrange(key, 0, -1)], None)
    redis_client.config_resetstat()
    granted = sum(lanes.reserve(now + step * 20 * MS, lane, 1).count for step in range(1000))
    took_us = redis_client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]
    figures(f"{rate}: {entries} entries, {size} bytes, {took_us} us a call, {granted} of 1000 granted")

    assert log == sorted(log)
    assert sum(slots for _, slots in log) == count == number
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


def test_no_period_has_more_than_n_starts_and_many_have_n(lanes: Lanes) -> None:
    starts, full = live_all(lanes, range(12), fixed=0.1, sliding=0.7)

    assert starts > 400
    assert full > 6


@pytest.mark.long
def test_no_period_has_more_than_n_starts_in_thousands_of_lives(lanes: Lanes) -> None:
    starts, full = live_all(lanes, range(100, 2600), fixed=0.1, sliding=0.7)

    assert starts > 125_000
    assert full > 1500


# none is lost


def greedy_starts(lanes: Lanes, lane: Lane, workers: int, until_us: int, missed: float = 0) -> list[int]:
    """The starts of workers that ask every 20 to 80 ms for as many as there may be.

    A part of their slots is missed, and given back after D.
    """
    draw = random.Random(workers)
    turns: list[tuple[int, int, LaneReservation | None]] = [
        (NOW + draw.randrange(20 * MS, 80 * MS), number, None) for number in range(workers)
    ]
    heapq.heapify(turns)
    starts: list[int] = []
    while turns[0][0] < until_us:
        now, number, missing = heapq.heappop(turns)
        if missing:
            lanes.give_back(lane, missing, now)
            continue
        answer = lanes.reserve(now, lane, 100, f"worker-{number}")
        answer.used = answer.count - sum(draw.random() < missed for _ in range(answer.count))
        starts += answer.starts_us[: answer.used]
        if answer.left:
            heapq.heappush(turns, (answer.untils_us[-1], len(starts), answer))
        heapq.heappush(turns, (now + draw.randrange(20 * MS, 80 * MS), number, None))
    return starts


@pytest.mark.parametrize("missed", [0, 0.1])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("rate", ["30/s", "100/10s", "1500/3s"])
def test_every_period_has_n(lanes: Lanes, rate: str, workers: int, missed: float) -> None:
    """In each P + D, or P where slots stay for P, from the first start on: all N come at once, in the beginning.

    A slot is free again when it was a P + D ago, and one that is missed, D after it came. With cells, up to a
    thousandth of P later. None of that takes as long as the next period.
    """
    (bucket,) = lane = (sliding(rate),)
    starts = greedy_starts(lanes, lane, workers, NOW + 4 * span_us(bucket), missed)
    for period in range(3):
        begin_us = min(starts) + period * span_us(bucket)
        inside = [us - begin_us for us in starts if 0 <= us - begin_us < span_us(bucket)]
        assert bucket.limit.burst * (1 if not missed else 0.97) <= len(inside) <= bucket.limit.burst


# mutants


SENTENCES = sentences(globals())


def test_the_scripts_as_they_are_pass(lanes: Lanes) -> None:
    assert len(SENTENCES) > 15
    assert complaint(SENTENCES, lanes) is None


@pytest.mark.parametrize("mutant", SLIDING_MUTANTS, ids=lambda mutant: mutant.why)
def test_a_mutant_is_killed(redis_client: redis.Redis, mutant: Mutant) -> None:
    assert originals()[mutant.file].count(mutant.old) == 1, "the Lua was edited: edit the mutant as well"
    assert complaint(SENTENCES, Lanes(redis_client, sources(mutant))), f"no test notices: {mutant.why}"
