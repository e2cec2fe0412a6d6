"""The scripts on a real server, one sentence per test. The mutants must fail one of those that take only a bucket."""

from __future__ import annotations

from fractions import Fraction

from celery_global_rate.limits.limit import Limit

from .replay import HORIZON_US, NOW, PATIENCE_US, Bucket, slot, slots

SECOND, DAY = 1_000_000, 86_400_000_000
PER_S, PER_DAY = Limit(SECOND), Limit(DAY)
PER_10_MS = Limit(10_000)


# slots


def test_a_missing_bucket_is_a_full_one_and_gives_its_slot_at_once(bucket: Bucket) -> None:
    assert slots(bucket.reserve(NOW, PER_S, 10)) == [NOW]


def test_a_full_bucket_gives_its_burst_at_once_and_no_more(bucket: Bucket) -> None:
    assert [NOW - k * SECOND for k in (4, 3, 2, 1, 0)] == slots(bucket.reserve(NOW, Limit(SECOND, burst=5), 10))
    assert bucket.reserve(NOW, Limit(SECOND, burst=5), 10).count == 0


def test_a_bucket_fills_up_to_its_burst_and_not_over_it(bucket: Bucket) -> None:
    limit = Limit(SECOND, burst=3)
    bucket.reserve(NOW, limit, 3)

    assert slots(bucket.reserve(NOW + SECOND + 7, limit, 5)) == [NOW + SECOND]
    later = NOW + 1000 * SECOND
    assert [later - 2 * SECOND, later - SECOND, later] == slots(bucket.reserve(later, limit, 5))


def test_nothing_is_saved_from_before_the_caller_was_in_touch(bucket: Bucket) -> None:
    """A full bucket of 5, and a caller that has had an answer for two intervals: 3 slots at once, not 5."""
    limit = Limit(10_000, burst=5)

    assert slots(bucket.reserve(NOW, limit, 4, awake_us=20_000)) == [NOW - 20_000, NOW - 10_000, NOW, NOW + 10_000]
    bucket.lose()
    assert slot(bucket.reserve(NOW, limit, awake_us=0)) == NOW
    bucket.lose()
    assert slot(bucket.reserve(NOW, limit, awake_us=40_001)) == NOW - 40_000


def test_slots_are_evenly_spaced_across_calls(bucket: Bucket) -> None:
    given = [given for now in range(NOW, NOW + SECOND, 33_000) for given in slots(bucket.reserve(now, PER_10_MS, 4))]

    assert [NOW + k * 10_000 for k in range(len(given))] == given


def test_a_slot_at_the_horizon_is_granted_and_one_beyond_it_is_not(bucket: Bucket) -> None:
    for limit, count in [(Limit(100_000), 2), (Limit(100_001), 1), (Limit(99_999, 999_999), 2), (Limit(100_000, 1), 1)]:
        bucket.lose()
        assert count == bucket.reserve(NOW, limit, 10).count, limit


def test_the_horizon_holds_all_its_slots_where_the_division_rounds_down(bucket: Bucket) -> None:
    bucket.horizon_us = 553  # 125 * 4.424, and a quotient of doubles that is less than 125

    assert bucket.reserve(NOW, Limit(4, 424_000), 1000).count == 126


def test_a_call_is_refused_until_the_promised_slot_enters_the_horizon(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_S)
    promised = bucket.reserve(NOW + 1, PER_S).first_us
    enters = promised - HORIZON_US

    assert promised == NOW + SECOND
    assert bucket.reserve(enters - 1, PER_S).count == 0
    assert [promised] == slots(bucket.reserve(enters, PER_S))


def test_a_promised_slot_with_a_remainder_enters_the_horizon_with_its_last_picosecond(bucket: Bucket) -> None:
    limit = Limit(SECOND, 1)
    bucket.reserve(NOW, limit)

    assert bucket.reserve(NOW + SECOND - HORIZON_US, limit).count == 0
    assert bucket.reserve(NOW + SECOND - HORIZON_US + 1, limit).count == 1


def test_a_refused_call_leaves_the_bucket_as_it_is(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_S)
    before = bucket.fields
    refused = bucket.reserve(NOW + 5000, Limit(2 * SECOND, 7, 3), 5, "two")

    assert (refused.count, refused.seq) == (0, 0)
    assert before == bucket.fields


def test_a_call_grants_no_more_than_wanted(bucket: Bucket) -> None:
    assert bucket.reserve(NOW, PER_10_MS, 3).count == 3
    assert slots(bucket.reserve(NOW, PER_10_MS, 1)) == [NOW + 30_000]


def test_a_call_grants_at_most_a_thousand_slots(bucket: Bucket) -> None:
    assert bucket.reserve(NOW, Limit(0, 500_000), 5000).count == 1000


def test_one_a_day_is_one_a_day(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_DAY)

    assert bucket.reserve(NOW + DAY - HORIZON_US - 1, PER_DAY).count == 0
    assert slots(bucket.reserve(NOW + DAY - HORIZON_US, PER_DAY)) == [NOW + DAY]


def test_a_hundred_thousand_a_second_are_ten_microseconds_apart(bucket: Bucket) -> None:
    given = [given for _ in range(20) for given in slots(bucket.reserve(NOW, Limit(10), 1000))]

    assert len(given) == 10_001
    assert all(NOW + 10 * k == given[k] for k in range(10_001))


def test_seven_a_second_keep_their_remainder_and_are_never_faster(bucket: Bucket) -> None:
    bucket.horizon_us = 150 * SECOND
    interval, now, count = 142_857 + Fraction(142_858, 1_000_000), NOW, 0
    while count < 100_000:
        given = bucket.reserve(now, Limit(142_857, 142_858), 1000)
        assert NOW + count * interval == slot(given)
        count += given.count
        now = int(slot(given, given.count - 1))

    late = slot(given, given.count - 1) - NOW - Fraction((count - 1) * SECOND, 7)
    assert 0 <= late < 1, "under a microsecond late in four hours"


# several limits on one bucket


def test_a_raise_and_a_drop_of_the_limit_take_effect_at_once(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_S)

    assert bucket.reserve(NOW, Limit(60 * SECOND)).first_us == NOW + 60 * SECOND
    assert slots(bucket.reserve(NOW, Limit(50_000), 1)) == [NOW + 50_000]
    assert bucket.reserve(NOW, PER_S).first_us == NOW + 50_000 + SECOND


def test_every_slot_of_two_declared_limits_is_the_callers_own_interval_after_the_one_before(bucket: Bucket) -> None:
    fast, slow, last = Limit(10_000), Limit(35_000, 5), Fraction(NOW - SECOND)
    for turn in range(200):
        limit = fast if turn % 3 else slow
        for given in slots(bucket.reserve(NOW + turn * 9_000, limit, 2)):
            assert given - last >= limit.interval_us + Fraction(limit.interval_ps, SECOND)
            last = given


# waiting workers, and fair shares


def test_a_grant_is_at_most_twice_the_fair_share(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_10_MS, 11)
    for worker in ("two", "three", "four"):
        bucket.reserve(NOW, PER_10_MS, 11, worker)
    now = NOW + HORIZON_US  # ten slots are free, four workers wait
    answer = bucket.reserve(now, PER_10_MS, 99, "two")

    assert (answer.count, answer.waiting) == (5, 4)
    assert bucket.reserve(now, PER_10_MS, 99, "three").count == 2, "twice a quarter of five, rounded down"


def test_a_grant_is_at_least_one_slot_however_many_wait(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_S)
    for number in range(40):
        bucket.reserve(NOW, PER_S, 1, str(number))
    answer = bucket.reserve(NOW + SECOND, PER_S, 9)

    assert (answer.count, answer.waiting) == (1, 41)


def test_who_waits_alone_or_with_one_other_may_take_the_whole_horizon(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_10_MS, 11, "two")

    assert bucket.reserve(NOW + HORIZON_US, PER_10_MS, 99).count == 10


def test_a_worker_counts_once_and_the_caller_always(bucket: Bucket) -> None:
    assert [bucket.reserve(NOW, PER_S, 1, who).waiting for who in ("one", "one", "two", "one")] == [1, 1, 2, 2]


def test_a_worker_is_forgotten_two_horizons_after_it_should_have_come_back(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_S)  # comes back when the slot of the next second enters the horizon
    until = NOW + SECOND - HORIZON_US + 2 * HORIZON_US

    assert bucket.reserve(until - 1, PER_10_MS, 1, "two").waiting == 2
    bucket.client.zrem(bucket.waiting_key, "two")
    assert bucket.reserve(until, PER_10_MS, 1, "two").waiting == 1


def test_a_worker_with_slots_at_hand_is_forgotten_two_horizons_later(bucket: Bucket) -> None:
    bucket.reserve(NOW, Limit(10_000, burst=99), 3)  # more are free now

    assert bucket.client.zrange(bucket.waiting_key, 0, -1, withscores=True) == [("one", NOW + 2 * HORIZON_US)]


def test_nobody_waits_longer_than_its_patience(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_DAY)
    bucket.reserve(NOW, PER_DAY)
    longest = PATIENCE_US + 2 * HORIZON_US

    assert bucket.reserve(NOW + longest - 1, PER_DAY, 1, "two").waiting == 2
    assert bucket.reserve(NOW + 2 * longest, PER_DAY, 1, "three").waiting == 1


def test_a_worker_that_wrote_its_time_on_a_clock_that_stepped_back_is_forgotten(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_DAY)
    bucket.reserve(NOW, PER_DAY, 1, "two")

    assert bucket.reserve(NOW, PER_DAY, 1, "three").waiting == 3
    assert bucket.reserve(NOW - 1, PER_DAY, 1, "four").waiting == 1


def test_the_list_of_waiters_expires_when_the_longest_wait_is_over(bucket: Bucket) -> None:
    bucket.patience_us, bucket.horizon_us = 70_000_000, 500_000
    bucket.reserve(NOW, PER_S)

    assert 70_000 < bucket.client.pttl(bucket.waiting_key) <= 71_000


# callers that give up


def test_no_slot_is_further_ahead_than_it_is_of_use(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_10_MS)
    bucket.latest_us = 30_000

    assert slots(bucket.reserve(NOW, PER_10_MS, 9)) == [NOW + 10_000, NOW + 20_000, NOW + 30_000]
    bucket.latest_us = 3_600 * SECOND
    assert bucket.reserve(NOW, PER_10_MS, 99).count == 7, "those up to the horizon"


def test_who_does_not_wait_gets_what_lies_ready_and_is_told_of_the_next(bucket: Bucket) -> None:
    bucket.latest_us = 0

    assert slots(bucket.reserve(NOW, Limit(10_000, burst=3), 9, "")) == [NOW - 20_000, NOW - 10_000, NOW]
    refused = bucket.reserve(NOW + 9_999, Limit(10_000, burst=3), 1, "")
    assert (refused.count, refused.first_us) == (0, NOW + 10_000)
    assert bucket.reserve(NOW + 10_000, Limit(10_000, burst=3), 1, "").count == 1


def test_who_does_not_wait_is_not_counted_and_the_others_stay(bucket: Bucket) -> None:
    for worker in ("one", "two"):
        bucket.reserve(NOW, PER_DAY, 1, worker)
    before = bucket.client.zrange(bucket.waiting_key, 0, -1, withscores=True)
    bucket.latest_us = 0

    assert bucket.reserve(NOW, PER_DAY, 1, "").waiting == 3
    assert bucket.reserve(NOW, PER_DAY, 1, "").waiting == 3
    assert before == bucket.client.zrange(bucket.waiting_key, 0, -1, withscores=True)
    assert len(before) == 2


# the clock of the server


def test_after_a_step_back_a_fast_limit_goes_on_with_the_lead_it_had(bucket: Bucket) -> None:
    last = slots(bucket.reserve(NOW, PER_10_MS, 6))[-1]
    stepped = NOW - 3600 * SECOND

    assert last == NOW + 50_000
    assert stepped + 60_000 == bucket.reserve(stepped, PER_10_MS).first_us


def test_a_step_back_to_an_instant_after_the_last_write_changes_nothing(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_10_MS, 6)
    bucket.reserve(NOW + SECOND, PER_DAY)

    assert bucket.reserve(NOW, PER_10_MS).first_us == NOW + 60_000


def test_the_lead_counts_from_the_last_write(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_10_MS, 11)  # up to 100 ms ahead
    bucket.reserve(NOW + 90_000, PER_10_MS, 1)  # 20 ms ahead

    assert bucket.reserve(NOW - SECOND, PER_10_MS).first_us == NOW - SECOND + 30_000


def test_a_step_back_with_a_slot_in_the_past_leaves_no_lead(bucket: Bucket) -> None:
    bucket.reserve(NOW, Limit(10_000, burst=50), 3)

    assert bucket.reserve(NOW - SECOND, Limit(10_000)).first_us == NOW - SECOND + 10_000


def test_a_step_back_costs_a_slow_limit_one_interval_and_not_the_length_of_the_step(bucket: Bucket) -> None:
    stepped = NOW - 3600 * SECOND
    bucket.reserve(NOW, PER_S)
    promised = bucket.reserve(stepped, PER_S).first_us

    assert stepped + SECOND == promised
    assert bucket.reserve(promised - HORIZON_US - 1, PER_S).count == 0
    assert [promised] == slots(bucket.reserve(promised - HORIZON_US, PER_S))


def test_two_steps_back_cost_two_intervals(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_S)
    stepped = [bucket.reserve(now, PER_S).first_us - now for now in (NOW - 9 * SECOND, NOW - 8_500_000, NOW - DAY)]

    assert stepped == [SECOND, 500_000, SECOND]


def test_after_a_step_forward_the_bucket_is_full_again(bucket: Bucket) -> None:
    bucket.reserve(NOW, PER_S)

    assert slots(bucket.reserve(NOW + DAY, PER_S, 5)) == [NOW + DAY]


def test_without_an_injected_time_the_server_tells_it(bucket: Bucket) -> None:
    before, answer, after = bucket.client.time(), bucket.reserve(None, PER_S), bucket.client.time()

    assert before[0] * SECOND + before[1] <= answer.now_us <= after[0] * SECOND + after[1]
    assert answer.now_us == slot(answer)
