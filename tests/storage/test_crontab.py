"""Refills by a crontab on the real scripts: so many at each of its instants, up to the maximum, whatever happens."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import redis
from celery.schedules import crontab

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.costs import Costs
from celery_global_rate.limits.lane_reservation import LaneReservation
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.refills import Refills
from celery_global_rate.storage.scripts import bucket_key

from .lanes import GUARD_US, Lanes
from .mutate import CRONTAB_MUTANTS, Mutant, complaint, originals, sentences, sources
from .replay import HORIZON_US, NOW, PREFIX

SECOND, MS = 1_000_000, 1_000
MINUTE = 60 * SECOND
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def lanes(redis_client: redis.Redis) -> Lanes:
    """Full buckets."""
    return Lanes(redis_client)


def refilled(amount: int, maximum: int, **fields: object) -> Bucket:
    return Bucket("tokens", "crontab", Limit.refilled(crontab(**fields), amount, maximum, "Europe/Berlin"))


def take(lanes: Lanes, now: int, bucket: Bucket, most: int = 99) -> int:
    """How many start at an instant, all that may."""
    answer = lanes.reserve(now, (bucket,), most)
    assert answer.starts_us == [now] * answer.count
    return answer.count


#: A minute begins at NOW.
FEW = refilled(2, 5)


def test_a_full_bucket_gives_its_maximum_and_then_an_amount_each_time(lanes: Lanes) -> None:
    assert [take(lanes, NOW + k * MINUTE, FEW) for k in range(3)] == [5, 2, 2]


def test_what_is_left_adds_up_to_the_maximum_and_no_further(lanes: Lanes) -> None:
    assert take(lanes, NOW, FEW) == 5
    assert take(lanes, NOW + 2 * MINUTE, FEW, 1) == 1
    assert take(lanes, NOW + 3 * MINUTE, FEW) == 5
    assert take(lanes, NOW + 30 * 24 * 60 * MINUTE, FEW) == 5, "after a month of idling"


def test_the_answer_says_when_more_come(lanes: Lanes) -> None:
    take(lanes, NOW + SECOND, FEW)

    assert lanes.reserve(NOW + SECOND, (FEW,), 1).again_us == NOW + MINUTE


def test_more_may_be_booked_ahead_within_the_horizon(lanes: Lanes) -> None:
    take(lanes, NOW, FEW, 4)
    now = NOW + MINUTE - HORIZON_US
    answer = lanes.reserve(now, (FEW,), 9)

    assert answer.starts_us == [now, NOW + MINUTE, NOW + MINUTE]
    assert answer.slots == [(NOW,), (NOW + MINUTE,), (NOW + MINUTE,)]
    assert take(lanes, NOW + MINUTE, FEW) == 0
    assert take(lanes, NOW + 2 * MINUTE, FEW) == 2


def test_what_is_booked_ahead_is_not_taken_before(lanes: Lanes) -> None:
    """Five are there; of the five at the next refill, five are booked in its guard, so that none may go before."""
    assert lanes.reserve(NOW + MINUTE - GUARD_US, (FEW,), 9).starts_us == [NOW + MINUTE] * 5
    lanes.client.hset(bucket_key(PREFIX, "tokens", "crontab"), "ahead", 5)
    before = lanes.reserve(NOW + SECOND, (FEW,), 9)

    assert before.count == 2, "with the three that are left and two that come, there are five"


def test_no_start_leaves_its_time(lanes: Lanes) -> None:
    answer = lanes.reserve(NOW + MINUTE - GUARD_US - 1, (FEW,), 1)
    assert (answer.starts_us, answer.untils_us) == ([NOW + MINUTE - GUARD_US - 1], [NOW + MINUTE - GUARD_US // 2])
    answer = lanes.reserve(NOW + MINUTE - GUARD_US, (FEW,), 1)
    assert (answer.starts_us, answer.untils_us) == ([NOW + MINUTE], [NOW + 2 * MINUTE - GUARD_US // 2])


@pytest.mark.parametrize("error_us", [-MINUTE, MINUTE, 10 * MINUTE])
def test_a_caller_that_is_wrong_about_now_gets_nothing(lanes: Lanes, error_us: int) -> None:
    wrong_about_now(lanes, error_us)


def test_callers_that_are_wrong_about_now_get_nothing(lanes: Lanes) -> None:
    for error_us in (-MINUTE, MINUTE):
        lanes.client.flushdb()
        wrong_about_now(lanes, error_us)


def wrong_about_now(lanes: Lanes, error_us: int) -> None:
    take(lanes, NOW, FEW)
    assert lanes.reserve(NOW + MINUTE + SECOND, (FEW,), 9, seen_us=NOW + MINUTE + SECOND + error_us).count == 0
    assert take(lanes, NOW + MINUTE + SECOND, FEW) == 2


def test_a_caller_that_is_a_little_early_does_not_refill(lanes: Lanes) -> None:
    take(lanes, NOW, FEW)
    now = NOW + MINUTE - 60 * MS

    assert lanes.reserve(now, (FEW,), 9, seen_us=now + 80 * MS).count == 0


def test_a_clock_that_steps_back_brings_no_refills(lanes: Lanes) -> None:
    assert take(lanes, NOW + 10 * MINUTE, FEW, 3) == 3
    assert take(lanes, NOW, FEW, 1) == 1
    assert lanes.reserve(NOW + 5 * MINUTE - MS, (FEW,), 9).count == 0, "what comes next has been there already"
    assert [take(lanes, NOW + k * MINUTE, FEW) for k in (5, 9, 10)] == [1, 0, 0]
    assert take(lanes, NOW + 11 * MINUTE, FEW) == 2


def test_tokens_come_back_until_the_next_refill(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (FEW,), 4)
    given.used = 1
    take(lanes, NOW, FEW, 1)
    assert lanes.give_back((FEW,), given, NOW + SECOND) == [3]
    assert lanes.fields(FEW)[0]["given"] == "2"
    assert take(lanes, NOW + SECOND, FEW) == 3


def test_tokens_of_before_a_refill_do_not_come_back(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (FEW,), 4)
    take(lanes, NOW + MINUTE, FEW, 1)

    assert lanes.give_back((FEW,), given, NOW + MINUTE + SECOND) == [0]
    assert take(lanes, NOW + MINUTE + SECOND, FEW) == 2


def test_what_was_booked_ahead_comes_back(lanes: Lanes) -> None:
    take(lanes, NOW, FEW)
    given = lanes.reserve(NOW + MINUTE - MS, (FEW,), 9)
    given.used = 1

    assert lanes.give_back((FEW,), given, NOW + MINUTE - MS) == [1]
    assert take(lanes, NOW + MINUTE, FEW) == 1


def test_nothing_comes_back_from_before_a_loss(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (FEW,), 2)
    lanes.lose(FEW)
    take(lanes, NOW + SECOND, FEW, 1)

    assert lanes.give_back((FEW,), given, NOW + SECOND) == [0]


def test_what_costs_more_than_the_maximum_is_paid_over_time(lanes: Lanes) -> None:
    """Nine of five: it starts when all five are there, and then two refills of two bring nothing."""
    take(lanes, NOW, FEW, 1)
    assert lanes.spend(NOW + SECOND, (FEW,), 9).count == 0
    assert lanes.spend(NOW + MINUTE, (FEW,), 9).starts_us == [NOW + MINUTE]
    assert [take(lanes, NOW + k * MINUTE, FEW) for k in (2, 3, 4)] == [0, 0, 2]


#: The most that one start can take of it: a hundred refills beyond the maximum.
LARGEST = FEW.limit.largest_cost


def test_what_costs_most_is_paid_while_others_ask(lanes: Lanes) -> None:
    """A hundred refills bring nothing. Those that ask send no more edges than fill an empty bucket."""
    assert lanes.spend(NOW, (FEW,), LARGEST).starts_us == [NOW]
    found = [take(lanes, NOW + k * MINUTE, FEW) for k in range(1, 104)]

    assert LARGEST == 5 + 100 * 2
    assert found == [0] * 100 + [2] * 3


@pytest.mark.parametrize(("rest", "tokens"), [(99, 0), (100, 0), (101, 2), (102, 4), (103, 5), (200, 5)])
def test_what_costs_most_is_paid_while_nobody_asks(lanes: Lanes, rest: int, tokens: int) -> None:
    lanes.spend(NOW, (FEW,), LARGEST)

    assert lanes.spend(NOW + rest * MINUTE, (FEW,), *[1] * 9).count == tokens


def test_what_is_owed_outlives_a_long_pause_between_refills(lanes: Lanes) -> None:
    """Ten refills a day, in ten minutes: a hundred take ten days, and from the third one on so many more minutes."""
    bucket = refilled(2, 5, hour=9, minute="0-9")
    begin = int(datetime(2026, 6, 1, 9, 2, tzinfo=BERLIN).timestamp()) * SECOND
    lanes.spend(begin, (bucket,), LARGEST)
    lives_ms = lanes.client.pttl(bucket_key(PREFIX, "tokens", "crontab"))

    assert lives_ms > 10 * 86_400_000
    assert lanes.spend(begin + 10 * 24 * 60 * MINUTE, (bucket,), 1).count == 0
    assert lanes.spend(begin + 10 * 24 * 60 * MINUTE + MINUTE, (bucket,), *[1] * 9).count == 2


def test_what_is_owed_outlives_a_long_pause_if_an_operator_sets_less(lanes: Lanes) -> None:
    """One token a refill in place of four: 400 refills, forty days, by a caller that pays no costs."""
    bucket, less = refilled(4, 20, hour=9, minute="0-9"), refilled(1, 20, hour=9, minute="0-9")
    begin = int(datetime(2026, 6, 1, 9, 2, tzinfo=BERLIN).timestamp()) * SECOND
    assert lanes.spend(begin, (bucket,), 420).count == 1
    take(lanes, begin, less)

    assert lanes.client.pttl(bucket_key(PREFIX, "tokens", "crontab")) > 40 * 86_400_000


def test_a_grant_is_at_most_twice_the_fair_share(lanes: Lanes) -> None:
    bucket = refilled(100, 100)
    take(lanes, NOW, bucket, 100)
    for worker in ("two", "three", "four"):
        assert lanes.reserve(NOW + MINUTE - 2 * HORIZON_US, (bucket,), 99, worker).count == 0
    answer = lanes.reserve(NOW + MINUTE, (bucket,), 99, "one")

    assert answer.count == 50


def test_a_state_lives_until_it_is_full_again(lanes: Lanes) -> None:
    take(lanes, NOW, FEW)

    assert 6 * 60_000 < lanes.client.pttl(bucket_key(PREFIX, "tokens", "crontab")) <= 8 * 60_000


# exact, in virtual time


def instants(begin: int, end: int, seed: int) -> Iterator[int]:
    """When workers ask: every 20 ms to 4 s, and around each minute."""
    draw, now = random.Random(seed), begin
    while now < end:
        yield now
        now += draw.choice([20 * MS, 300 * MS, 4 * SECOND])


def test_every_minute_fifty_and_a_hundred_at_most(lanes: Lanes) -> None:
    """An hour of load: each minute has its fifty. Ten minutes of rest: the next one has a hundred."""
    bucket = refilled(50, 100)
    starts: Counter[int] = Counter()
    for now in instants(NOW, NOW + 60 * MINUTE, 1):
        if not 20 <= (now - NOW) // MINUTE < 30:
            answer = lanes.reserve(now, (bucket,), 100)
            starts.update((us - NOW) // MINUTE for us in answer.starts_us)

    expected = {0: 100, 30: 100, **dict.fromkeys((*range(1, 20), *range(31, 60)), 50)}
    assert {minute: count for minute, count in starts.items() if minute < 60} == expected


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25)])
def test_every_hour_in_berlin_when_clocks_change(lanes: Lanes, day: tuple[int, int, int], hours: int) -> None:
    bucket = refilled(10, 10, minute=0)
    begin = int(datetime(*day, tzinfo=BERLIN).timestamp()) * SECOND
    end = int((datetime(*day, tzinfo=BERLIN) + timedelta(days=1)).timestamp()) * SECOND
    starts: Counter[int] = Counter()
    for now in range(begin, end - SECOND, 5 * MINUTE):
        answer = lanes.reserve(now, (bucket,), 4)
        starts.update((us - begin) // (60 * MINUTE) for us in answer.starts_us)

    assert starts == dict.fromkeys(range(hours), 10)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("beyond", [None, 0, 3, 8])
def test_no_life_has_more_than_the_maximum_and_an_amount_for_each_refill(
    lanes: Lanes, seed: int, beyond: int | None
) -> None:
    """Random calls of several workers, some wrong about now, slots used late or given back: by brute force.

    Between two refills no more units than the maximum, or the largest cost; and with n refills in between n amounts
    more. The largest cost is so many refills beyond the maximum; or each start takes one.
    """
    draw = random.Random(seed)
    amount = draw.choice([1, 3, 10])
    bucket = refilled(amount, draw.choice([amount, 2 * amount, 7 * amount]), minute=draw.choice(["*", "*/2", "0,1,30"]))
    largest = 1 if beyond is None else bucket.limit.burst + beyond * amount
    window = bucket.limit.window
    assert isinstance(window, Refills)
    in_hand: list[LaneReservation] = []
    now, times = NOW, Counter[int]()
    for _ in range(600):
        now += draw.choice([0, 10 * MS, 300 * MS, 7 * SECOND, MINUTE, draw.randrange(5 * MINUTE)])
        if draw.random() < 0.2:  # to an edge
            now = window.edges(now, 1).next_us[0] - draw.choice([0, 1, GUARD_US, GUARD_US + 1, HORIZON_US])
        if in_hand and draw.random() < 0.3:
            lanes.give_back((bucket,), in_hand.pop(draw.randrange(len(in_hand))), now)
            continue
        error_us = draw.choice([0, 0, 0, draw.randrange(-(10**8), 10**8)])
        worker = draw.choice(["one", "two", "three"])
        costs = [draw.choice([1, 1, draw.randrange(1, largest + 1), largest]) for _ in range(draw.choice([1, 2, 30]))]
        answer = lanes.reserve(
            now,
            (bucket,),
            len(costs),
            worker,
            seen_us=now + error_us,
            costs=Costs(tuple((cost,) for cost in costs)) if largest > 1 else None,
        )
        answer.used = draw.randrange(answer.count + 1)
        for start_us, until_us, cost in zip(answer.starts_us[: answer.used], answer.untils_us, costs):
            times[window.edges(draw.choice([start_us, until_us]), 1).past[-1]] += cost if largest > 1 else 1
        if answer.left:
            in_hand.append(answer)
    edges = sorted(times)
    assert len(edges) > 10
    for first in range(len(edges)):
        used = refills = 0
        for last in range(first, len(edges)):
            used += times[edges[last]]
            if last > first:
                refills += between(window, edges[last - 1], edges[last])
            assert used <= max(bucket.limit.burst, largest) + refills * amount


def between(window: Refills, begin_us: int, end_us: int) -> int:
    """How many refills come after one, up to another."""
    count = 0
    while begin_us < end_us:
        begin_us, count = window.edges(begin_us, 1).next_us[0], count + 1
    return count


# mutants


SENTENCES = sentences(globals())


def test_the_scripts_as_they_are_pass(lanes: Lanes) -> None:
    assert len(SENTENCES) > 12
    assert complaint(SENTENCES, lanes) is None


@pytest.mark.parametrize("mutant", CRONTAB_MUTANTS, ids=lambda mutant: mutant.why)
def test_a_mutant_is_killed(redis_client: redis.Redis, mutant: Mutant) -> None:
    assert originals()[mutant.file].count(mutant.old) == 1, "the Lua was edited: edit the mutant as well"
    assert complaint(SENTENCES, Lanes(redis_client, sources(mutant))), f"no test notices: {mutant.why}"
