"""Lanes of several limits on a real server: all limits book, or none; no window holds too much; none is wasted."""

from __future__ import annotations

import heapq
import random
import time
from typing import Any

import pytest
import redis

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.costs import Costs
from celery_global_rate.limits.lane_reservation import LaneReservation
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.timing import HORIZON_S
from celery_global_rate.storage.scripts import GIVE_BACK_LANE, RESERVE_LANE

from .lanes import MOST_RANGES, Lane, Lanes, Life
from .mutate import LANE_MUTANTS, Mutant, complaint, originals, sentences, sources
from .replay import HORIZON_US, NOW, PATIENCE_US

SECOND, MS = 1_000_000, 1_000
D_US = 25 * MS
AGE_US = int(0.3 * D_US)


@pytest.fixture
def lanes(redis_client: redis.Redis) -> Lanes:
    """Full buckets."""
    return Lanes(redis_client)


def shared(name: str, interval_us: int, burst: int = 1, ps: int = 0) -> Bucket:
    """A limit that lanes cross."""
    return Bucket(name, "smooth", Limit(interval_us, ps, burst), is_crossed=True)


def alone(name: str, interval_us: int, burst: int = 1) -> Bucket:
    """A limit of one lane."""
    return Bucket(name, "", Limit(interval_us, burst=burst))


SLOW, FAST = alone("slow", 100 * MS), shared("fast", 10 * MS)


def starts(reservation: LaneReservation) -> list[int]:
    return [us - NOW for us in reservation.starts_us]


# granted or refused as one


def test_a_lane_starts_when_all_of_its_limits_allow_it(lanes: Lanes) -> None:
    lanes.reserve(NOW, (SLOW, FAST))
    lanes.reserve(NOW, (FAST,), 3)
    answer = lanes.reserve(NOW, (SLOW, FAST), 9)

    assert starts(answer) == [100 * MS]
    assert (answer.again_us, answer.binds) == (NOW + 200 * MS, 0)


def test_all_limits_book_or_none(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (SLOW, FAST), 9)
    booked = lanes.fields(SLOW, FAST)
    refused = lanes.reserve(NOW, (SLOW, FAST), 9)

    assert [fields["given"] for fields in booked] == ["2", "2"]
    assert [fields["seq"] for fields in booked] == [str(given.seq)] * 2
    assert (refused.count, refused.seq) == (0, 0)
    assert lanes.fields(SLOW, FAST) == booked
    assert lanes.client.dbsize() == 3, "two states and those that wait at one of them"


def test_the_serial_grows_beyond_that_of_each_limit(lanes: Lanes) -> None:
    for _ in range(3):
        lanes.reserve(NOW, (FAST,))

    assert lanes.reserve(NOW, (SLOW, FAST)).seq == NOW + 3
    assert lanes.reserve(NOW + 50 * MS, (FAST,)).seq == NOW + 50 * MS


def test_a_call_grants_no_more_than_wanted_nor_than_a_hundred(lanes: Lanes) -> None:
    assert lanes.reserve(NOW, (FAST,), 2).count == 2
    assert lanes.reserve(NOW, (shared("faster", 100),), 500).count == 100


def test_the_slots_are_within_the_horizon(lanes: Lanes) -> None:
    assert starts(lanes.reserve(NOW, (FAST,), 50)) == [k * 10 * MS for k in range(11)]


def test_a_limit_in_picoseconds_is_rounded_up_and_never_faster_with_plain_slots_between(lanes: Lanes) -> None:
    """Plain slots end at k T exactly; the lane's next one is a whole T after that, and the plain one after it."""
    seventh = shared("seventh", 142_857, ps=142_858)
    plain = lanes.reserve_plain(NOW, seventh)
    assert lanes.reserve(NOW + 100 * MS, (seventh,)).starts_us == [plain.first_us + 142_858]

    later = lanes.reserve_plain(NOW + 200 * MS, seventh)
    assert (later.first_us, later.first_ps) == (NOW + 142_858 + 142_857, 142_858)
    assert lanes.reserve(NOW + 350 * MS, (seventh,)).starts_us == [later.first_us + 1 + 142_858]


def test_the_burst_is_given_at_once_and_no_more(lanes: Lanes) -> None:
    own = alone("own", 100 * MS, burst=4)
    answer = lanes.reserve(NOW, (own,), 9)

    assert starts(answer) == [0, 0, 0, 0, 100 * MS]
    assert [until_us - NOW for until_us in answer.untils_us] == [D_US] * 4 + [100 * MS + D_US]


# holes


def test_what_a_lane_skips_is_free_for_the_others(lanes: Lanes) -> None:
    lanes.reserve(NOW, (SLOW, FAST))
    lanes.reserve(NOW, (SLOW, FAST))  # in 100 ms: the nine before are holes

    assert starts(lanes.reserve(NOW, (FAST,), 50)) == [k * 10 * MS for k in range(1, 10)]


def test_what_a_lane_skips_of_its_own_limit_is_not_kept(lanes: Lanes) -> None:
    own = alone("own", 10 * MS)
    lanes.reserve(NOW, (SLOW, own))
    lanes.reserve(NOW, (SLOW, own))

    assert lanes.holes(own) == []
    assert starts(lanes.reserve(NOW, (own,), 50)) == []


def test_holes_do_not_overlap_what_is_booked(lanes: Lanes) -> None:
    """S + T is 10 ms, the next start 87 ms and its slot 7.5 ms before, in no step with S: holes back to 19.5 ms."""
    gate = alone("gate", 87 * MS)
    lanes.reserve(NOW, (gate,))
    lanes.reserve(NOW, (FAST,))
    answer = lanes.reserve(NOW, (gate, FAST))
    at_us = answer.slots[0][1]

    assert lanes.holes(FAST) == [at_us - k * 10 * MS for k in range((at_us - NOW) // (10 * MS) - 1, 0, -1)]
    assert min(lanes.holes(FAST)) >= NOW + 10 * MS


def test_a_slot_out_of_step_leaves_holes_a_whole_interval_after_the_last(lanes: Lanes) -> None:
    """T = 30 ms, and the start is 78 ms: in step is 60 ms, too old, or 90, too late. So as old as may be: 70.5."""
    gate, limit = alone("gate", 78 * MS), shared("limit", 30 * MS)
    lanes.reserve(NOW, (gate, limit))

    assert lanes.reserve(NOW, (gate, limit)).slots == [(NOW + 78 * MS, NOW + 78 * MS - AGE_US)]
    assert lanes.holes(limit) == [NOW + 78 * MS - AGE_US - 30 * MS]


def test_a_start_waits_for_the_next_slot_in_step_if_that_costs_the_others_nothing(lanes: Lanes) -> None:
    """T = 30 ms, and the start is 83 ms: 60 ms is too old, 90 is 7 ms later, and the gate's slot no older than A."""
    gate, limit = alone("gate", 83 * MS), shared("limit", 30 * MS)
    lanes.reserve(NOW, (gate, limit))
    answer = lanes.reserve(NOW, (gate, limit))

    assert (answer.starts_us, answer.slots) == ([NOW + 90 * MS], [(NOW + 83 * MS, NOW + 90 * MS)])
    assert lanes.holes(limit) == [NOW + 30 * MS, NOW + 60 * MS]
    lanes.give_back((gate, limit), answer)
    assert lanes.holes(gate) == [NOW + 83 * MS]
    assert lanes.holes(limit) == [NOW + 30 * MS, NOW + 60 * MS, NOW + 90 * MS]


def test_no_start_waits_if_the_slot_before_is_lost_to_all(lanes: Lanes) -> None:
    """At 53 ms the slot of 30 is too old for anyone: to wait for that of 60 would waste it."""
    gate, limit = alone("gate", 83 * MS), shared("limit", 30 * MS)
    lanes.reserve(NOW, (limit,))

    assert lanes.reserve(NOW + 53 * MS, (gate, limit)).starts_us == [NOW + 53 * MS]


def test_a_slot_may_be_older_than_its_start_and_ends_that_much_earlier(lanes: Lanes) -> None:
    """The start at 87 ms takes the slot of 80 ms: usable for 18 of 25 ms."""
    gate = alone("gate", 87 * MS)
    lanes.reserve(NOW, (gate, FAST))
    answer = lanes.reserve(NOW, (gate, FAST))

    assert (answer.slots, answer.untils_us) == ([(NOW + 87 * MS, NOW + 80 * MS)], [NOW + 80 * MS + D_US])
    assert answer.usable_s(1) == pytest.approx(0.018 - 0.005)


def test_the_oldest_hole_within_reach_goes_first_and_of_older_ones_the_newest(lanes: Lanes) -> None:
    """Holes from 10 to 90 ms, T = 10 ms, A = 7.5 ms: of use 3 ms after its time, not 9."""
    lanes.reserve(NOW, (SLOW, FAST))
    lanes.reserve(NOW, (SLOW, FAST))

    assert lanes.reserve(NOW + 33 * MS, (FAST,)).slots == [(NOW + 30 * MS,)]
    assert lanes.reserve(NOW + 49 * MS, (FAST,)).slots == [(NOW + 50 * MS,)]
    burst = Bucket(FAST.name, FAST.window, Limit(10 * MS, burst=3), is_crossed=True)
    assert lanes.reserve(NOW + 85 * MS, (burst,)).slots == [(NOW + 70 * MS,)]


def test_holes_too_old_for_all_are_dropped_with_the_next_booking(lanes: Lanes) -> None:
    lanes.reserve(NOW, (SLOW, FAST))
    lanes.reserve(NOW, (SLOW, FAST))
    lanes.reserve(NOW + 150 * MS, (FAST,))

    assert lanes.holes(FAST) == []


def test_no_more_than_sixteen_ranges_are_kept_the_newest(lanes: Lanes) -> None:
    """Each of 21 slots given back lies between two that are used."""
    limit = alone("limit", 2 * MS)
    given = [lanes.reserve(NOW, (limit,)) for _ in range(41)]
    for reservation in given[::2]:
        lanes.give_back((limit,), reservation)

    assert lanes.holes(limit) == [NOW + k * 2 * MS for k in range(10, 42, 2)]
    assert len(lanes.holes(limit)) == MOST_RANGES


def test_holes_are_dropped_where_the_interval_changes(lanes: Lanes) -> None:
    slower = Bucket(FAST.name, FAST.window, Limit(20 * MS), is_crossed=True)
    for first, then in [(FAST, slower), (slower, FAST)]:
        lanes.lose(FAST, SLOW)
        lanes.reserve(NOW, (SLOW, first))
        last_us = lanes.reserve(NOW, (SLOW, first)).slots[0][1]

        assert lanes.reserve(NOW, (then,)).again_us == last_us + then.limit.whole_us
        assert lanes.reserve(NOW + 50 * MS, (then,)).slots == [(last_us + then.limit.whole_us,)]
        assert lanes.holes(FAST) == []


@pytest.mark.parametrize("is_plain", [False, True])
def test_holes_are_dropped_where_the_clock_steps_back(lanes: Lanes, is_plain: bool) -> None:
    lanes.reserve(NOW, (SLOW, FAST))
    lanes.reserve(NOW, (SLOW, FAST))
    stepped = NOW - 60 * SECOND
    if is_plain:
        assert lanes.reserve_plain(stepped, FAST).count == 0
    else:
        assert lanes.reserve(stepped, (FAST,)).again_us == stepped + 110 * MS
    assert lanes.fields(FAST)[0]["holes"] == ""


def test_nothing_from_before_a_floor_is_given(lanes: Lanes) -> None:
    """Holes from 10 to 90 ms; a floor at 35 ms, then a caller that has been in touch since 52 ms."""
    lanes.reserve(NOW, (SLOW, FAST))
    lanes.reserve(NOW, (SLOW, FAST))

    assert starts(lanes.reserve(NOW, (FAST,), 1, overrides=[f"1:a:{NOW + 35 * MS}:{{}}"])) == [40 * MS]
    lanes.client.flushall()
    lanes.reserve(NOW, (SLOW, FAST))
    lanes.reserve(NOW, (SLOW, FAST))
    assert lanes.reserve(NOW + 53 * MS, (FAST,), awake_us=MS).slots == [(NOW + 60 * MS,)]
    assert lanes.reserve(NOW + 53 * MS, (FAST,)).slots == [(NOW + 50 * MS,)]


def test_a_lane_starts_after_the_floors_of_all_its_limits(lanes: Lanes) -> None:
    floor_us = NOW + 55 * MS
    answer = lanes.reserve(NOW, (FAST, alone("own", MS)), 1, overrides=["", f"1:a:{floor_us}:{{}}"])

    assert answer.starts_us == [floor_us]
    assert min(lanes.holes(FAST)) >= NOW - AGE_US
    assert lanes.holes(FAST)[-1] == floor_us - 10 * MS


def test_what_lies_before_a_floor_is_no_hole(lanes: Lanes) -> None:
    answer = lanes.reserve(NOW, (FAST,), 1, overrides=[f"1:a:{NOW + 55 * MS}:{{}}"])

    assert answer.slots == [(NOW + 55 * MS,)]
    assert lanes.holes(FAST) == []


# giving back


def test_slots_given_back_are_free_again_whatever_was_booked_since(lanes: Lanes) -> None:
    own = alone("own", 10 * MS)
    given = lanes.reserve(NOW, (own, FAST), 4)
    lanes.reserve(NOW, (own, FAST), 2)
    given.used = 2

    assert lanes.give_back((own, FAST), given) == [2, 2]
    assert [fields["given"] for fields in lanes.fields(own, FAST)] == ["4", "4"]
    assert starts(lanes.reserve(NOW, (own, FAST), 3)) == [20 * MS, 30 * MS, 60 * MS]


def test_a_repeat_takes_nothing_back(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (FAST,), 4)

    assert [lanes.give_back((FAST,), given), lanes.give_back((FAST,), given)] == [[4], [0]]
    assert lanes.fields(FAST)[0]["given"] == "0"
    assert len(lanes.holes(FAST)) == 4


def test_nothing_that_would_overlap_a_hole_is_taken_back(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (FAST,), 6)
    all_slots = [*given.slots]
    given.slots[:] = [*all_slots[2:4], *all_slots[2:4], (NOW + 15 * MS,), (NOW + 35 * MS,)]

    assert lanes.give_back((FAST,), given) == [2]
    assert lanes.holes(FAST) == [NOW + 20 * MS, NOW + 30 * MS]
    assert lanes.fields(FAST)[0]["given"] == "4"


def test_slots_given_back_in_any_order_are_holes_where_they_were(lanes: Lanes) -> None:
    for seed in range(8):
        lanes.lose(FAST)
        given = [lanes.reserve(NOW, (FAST,)) for _ in range(9)]
        last_us = given.pop().starts_us[0]
        random.Random(seed).shuffle(given)
        expected: list[int] = []
        for reservation in given:
            expected = sorted([*expected, *reservation.starts_us])
            assert lanes.give_back((FAST,), reservation) == [1]
            assert lanes.holes(FAST) == expected
        assert lanes.fields(FAST)[0]["holes"].split(" ")[2:] == [f"{NOW}:8"], "one range"
        assert starts(lanes.reserve(NOW, (FAST,), 50))[:9] == [k * 10 * MS for k in (*range(8), 9)], last_us


def test_each_limit_takes_back_for_itself(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (SLOW, FAST))
    lanes.lose(SLOW)

    assert lanes.give_back((SLOW, FAST), given) == [0, 1]
    assert lanes.fields(SLOW) == [{}]


def test_nothing_is_given_back_to_a_state_that_was_lost(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (FAST,), 4)
    lanes.lose(FAST)
    lanes.reserve(NOW + 5 * MS, (FAST,), 3)

    assert lanes.give_back((FAST,), given) == [0]


def test_nothing_is_given_back_after_the_clock_stepped_back_or_the_interval_changed(lanes: Lanes) -> None:
    slower = Bucket(FAST.name, FAST.window, Limit(15 * MS), is_crossed=True)
    given = lanes.reserve(NOW, (FAST,), 4)
    lanes.reserve(NOW, (slower,))
    assert lanes.give_back((FAST,), given) == [0]
    lanes.reserve(NOW, (FAST,))
    assert lanes.give_back((FAST,), given) == [0], "the same interval, but another grid"

    given = lanes.reserve(NOW, (FAST,), 2)
    lanes.reserve_plain(NOW - SECOND, FAST)
    assert lanes.give_back((FAST,), given) == [0]
    lanes.reserve(NOW - SECOND, (FAST,), 3)
    assert lanes.give_back((FAST,), given) == [0]


def test_nothing_is_given_back_to_a_replica_that_has_not_heard_of_it(lanes: Lanes) -> None:
    lanes.reserve(NOW, (FAST,), 2)
    before: dict[Any, Any] = lanes.fields(FAST)[0]
    given = lanes.reserve(NOW, (FAST,), 3)
    lanes.lose(FAST)
    lanes.client.hset(f"{{test}}:limit:{FAST.name}:smooth", mapping=before)

    assert lanes.give_back((FAST,), given) == [0]


# who waits, and where


def test_the_limit_that_binds_is_the_latest_by_itself(lanes: Lanes) -> None:
    later, sooner = shared("later", 180 * MS), shared("sooner", 150 * MS)

    assert lanes.reserve(NOW, (later, sooner)).binds == 0
    assert lanes.reserve(NOW, (sooner, later)).binds == 1


def test_a_limit_that_only_moves_a_start_on_does_not_bind(lanes: Lanes) -> None:
    """The gate's next start is at 150 ms. The other has a hole at 0, and at 150 waits for 160.

    Who waited at the other would keep all from its free slots.
    """
    gate, other = alone("gate", 150 * MS), shared("other", 80 * MS, burst=2)
    given = lanes.reserve(NOW, (other,), 3)
    assert [us - NOW for (us,) in given.slots] == [-80 * MS, 0, 80 * MS]
    given.slots.pop()
    given.count = 2
    lanes.give_back((other,), given)
    answer = lanes.reserve(NOW, (gate, other))

    assert (answer.starts_us, answer.again_us, answer.binds) == ([NOW], NOW + 160 * MS, 0)


def test_a_worker_waits_at_the_limit_that_binds_and_nowhere_else(lanes: Lanes) -> None:
    lanes.reserve(NOW, (SLOW, FAST))
    answer = lanes.reserve(NOW, (SLOW, FAST), 1, "two")

    assert (lanes.waiting(SLOW), lanes.waiting(FAST)) == (
        {"one": NOW + 2 * HORIZON_US, "two": answer.again_us - HORIZON_US + 2 * HORIZON_US},
        {},
    )
    assert answer.waiting == 2
    assert lanes.reserve(NOW, (FAST,), 50, "three").waiting == 1
    assert list(lanes.waiting(FAST)) == ["three"]


def test_who_waits_is_forgotten_and_nobody_waits_longer_than_its_patience(lanes: Lanes) -> None:
    day = shared("day", 86_400 * SECOND)
    lanes.reserve(NOW, (day,))
    lanes.reserve(NOW, (day,))
    longest = PATIENCE_US + 2 * HORIZON_US

    assert lanes.reserve(NOW + longest - 1, (day,), 1, "two").waiting == 2
    assert lanes.reserve(NOW + 2 * longest, (day,), 1, "three").waiting == 1
    assert 5_000 < lanes.client.pttl("{test}:limit-waiting:day:smooth") <= 5_200


def test_a_grant_is_at_most_twice_the_fair_share_of_the_limit_that_binds_and_at_least_one(lanes: Lanes) -> None:
    lanes.reserve(NOW, (FAST,), 11)
    for worker in ("two", "three", "four"):
        lanes.reserve(NOW, (FAST,), 11, worker)
    now = NOW + HORIZON_US  # ten slots are free, four workers wait

    answer = lanes.reserve(now, (FAST, shared("wide", MS)), 99, "two")
    assert (answer.count, answer.waiting) == (5, 4)
    assert lanes.reserve(now, (FAST,), 99, "three").count == 2, "twice a quarter of five, rounded down"
    for number in range(40):
        lanes.reserve(now, (FAST,), 1, str(number))
    assert lanes.reserve(now + 50 * MS, (FAST,), 9).count == 1


def test_holes_count_for_the_fair_share(lanes: Lanes) -> None:
    """Eleven slots of which nine were given back: the two of us share nine, so one may take all."""
    given = lanes.reserve(NOW, (FAST,), 11)
    given.used = 2
    lanes.reserve(NOW, (FAST,), 1, "two")
    lanes.reserve(NOW, (FAST,), 1, "three")
    lanes.give_back((FAST,), given)

    assert lanes.reserve(NOW, (FAST,), 99, "two").count == 6, "twice a third of nine"


# overrides, expiry


def test_a_higher_override_of_one_limit_is_returned_and_nothing_granted(lanes: Lanes) -> None:
    text = f"7:b:{NOW}:{{}}"
    lanes.reserve(NOW, (FAST,), 1, overrides=[text])
    before = lanes.fields(SLOW, FAST)
    answer = lanes.reserve(NOW, (SLOW, FAST), 1, overrides=["", f"6:z:{NOW}:{{}}"])

    assert (answer.count, answer.which, answer.override) == (0, 1, text)
    assert lanes.fields(SLOW, FAST) == before
    assert lanes.reserve(NOW, (SLOW, FAST), 1, overrides=["", text]).override == ""


def test_a_state_lives_a_minute_longer_than_it_takes_to_fill(lanes: Lanes) -> None:
    """S + b T, and a minute: never less, and a refused call of a slower limit prolongs it."""
    for bucket in (SLOW, FAST, alone("day", 86_400 * SECOND), alone("many", SECOND, 500)):
        key = f"{{test}}:limit:{bucket.name}:smooth" if bucket.window else f"{{test}}:bucket:{bucket.name}"
        before = time.monotonic()
        answer = lanes.reserve(NOW, (bucket, shared("other", MS)), 1)
        least_ms = (answer.slots[0][0] + bucket.limit.burst * bucket.limit.whole_us - NOW) / 1000 + 60_000
        left_ms = lanes.client.pttl(key)
        passed_ms = (time.monotonic() - before) * 1000

        assert least_ms - passed_ms - 1 <= left_ms <= least_ms + 1
        lanes.reserve(NOW, (Bucket(bucket.name, bucket.window, Limit(2 * 86_400 * SECOND)),))
        assert lanes.client.pttl(key) > 2 * 86_400_000 - 500_000
        lanes.reserve(NOW + 100 * MS, (bucket,))
        assert lanes.client.pttl(key) > 2 * 86_400_000 - 500_000


def test_no_digit_is_lost_up_to_the_year_2200(lanes: Lanes) -> None:
    year_2200 = 7_258_118_399_999_999
    limit = shared("limit", 33_333)
    given = lanes.reserve(year_2200, (limit,), 4)
    given.used = 1
    lanes.give_back((limit,), given)

    assert given.starts_us == [year_2200 + k * 33_333 for k in range(4)]
    assert lanes.holes(limit) == given.starts_us[1:]
    assert lanes.waiting(limit) == {"one": year_2200 + 4 * 33_333 - HORIZON_US + 2 * HORIZON_US}


def test_redis_knows_the_scripts_by_the_sha_that_the_worker_reckons(redis_client: redis.Redis) -> None:
    for script in (RESERVE_LANE, GIVE_BACK_LANE):
        assert script.sha == redis_client.script_load(script.source)


# any life


def live(lanes: Lanes, seeds: range, length: int = 80) -> tuple[int, int]:
    """How many starts there were, and in how many lives a limit had less than 1 us to spare: D is as long as may be."""
    starts = tight = 0
    for seed in seeds:
        lanes.client.flushdb()
        life = Life(lanes, seed)
        life.live(length)
        starts += life.used
        tight += life.spare_us < 1
    return starts, tight


def test_no_window_holds_more_than_promised_and_some_hold_as_much(lanes: Lanes) -> None:
    starts, tight = live(lanes, range(12))

    assert starts > 500
    assert tight > 1


@pytest.mark.long
def test_no_window_holds_more_than_promised_in_thousands_of_lives(lanes: Lanes) -> None:
    starts, tight = live(lanes, range(100, 5100))

    assert starts > 200_000
    assert tight > 500


# use


def crossing(shared_rate: str, own_rates: list[str]) -> list[Lane]:
    """Lanes with these limits of their own, or none, under one that they share."""
    under = Bucket("shared", "smooth", parsed(shared_rate), is_crossed=True)
    own = [(Bucket(f"own-{number}", "", parsed(rate)),) if rate else () for number, rate in enumerate(own_rates)]
    return [(*bucket, under) for bucket in own]


def parsed(rate: str) -> Limit:
    limit = Limit.parse(rate)
    assert limit is not None
    return limit


def used_per_s(lanes: Lanes, paths: list[Lane], callers: int, seconds: float) -> float:
    """Slots per second of callers that want more than there are, and come back as workers do.

    All of them see their slots in time. Counted are the starts after the first second.
    """
    draw = random.Random(callers + seconds)
    horizon_us = int(HORIZON_S * 1e6)
    turns = [
        (NOW + draw.randrange(horizon_us), worker, path) for worker in range(callers) for path in range(len(paths))
    ]
    heapq.heapify(turns)
    end_us, used = NOW + int((1 + seconds) * SECOND), 0
    while turns[0][0] < end_us:
        now, worker, path = turns[0]
        answer = lanes.reserve(now, paths[path], 30, f"worker-{worker}")
        used += sum(NOW + SECOND <= start_us < end_us for start_us in answer.starts_us)
        limit = paths[path][answer.binds].limit
        if limit.interval_s < HORIZON_S and answer.again_us <= now + 2 * horizon_us:
            now += draw.randrange(horizon_us // 2, horizon_us)
        else:
            now = max(now + MS, answer.again_us - horizon_us + draw.randrange(horizon_us // 4))
        heapq.heapreplace(turns, (now, worker, path))
    return used / seconds


#: The limit that lanes share, what each has for itself, what that makes together, and the share that one and four
#: callers use at least.
CROSSINGS = [
    ("100/s", ["10/s", ""], 100, (0.985, 0.99)),
    ("100/s", ["33/s"] * 3, 99, (0.985, 0.99)),
    ("100/s", ["24/s"] * 4, 96, (0.965, 0.97)),
    ("100/s", ["49/s"] * 2, 98, (0.985, 0.985)),
    ("100/s", ["30/s"] * 3, 90, (0.975, 0.98)),
    ("100/s", ["30/s"] * 2, 60, (0.985, 0.99)),
    ("20/s", ["7/s", ""], 20, (0.96, 0.99)),
]


CELLS = [
    pytest.param(crossed, callers, id=f"{crossed[0]}: {' '.join(crossed[1])}-{callers}", marks=marks)
    for crossed in CROSSINGS
    for callers, marks in ((1, ()), (4, () if "" in crossed[1] else pytest.mark.long))
]


@pytest.mark.parametrize(("crossed", "callers"), CELLS)
def test_lanes_that_cross_use_what_their_limits_allow(
    lanes: Lanes, crossed: tuple[str, list[str], int, tuple[float, float]], callers: int
) -> None:
    """What is booked ahead at both ends may be a slot per lane more.

    These callers book as far ahead as they may, for each lane by itself, so that little is left between the slots of
    several lanes with limits of their own. `tests/scheduling/test_crossing_lanes.py` has those of real schedulers.
    """
    shared_rate, own_rates, allowed, least = crossed
    used = used_per_s(lanes, crossing(shared_rate, own_rates), callers, 8)

    assert least[callers > 1] * allowed <= used <= allowed + (1 + len(own_rates)) / 8


# callers that give up


def test_no_slot_of_a_lane_is_further_ahead_than_it_is_of_use(lanes: Lanes) -> None:
    lanes.reserve(NOW, (FAST,))

    assert starts(lanes.reserve(NOW, (FAST,), 9, latest_us=30 * MS)) == [10 * MS, 20 * MS, 30 * MS]
    assert len(starts(lanes.reserve(NOW, (FAST,), 99, latest_us=3600 * SECOND))) == 7, "those up to the horizon"
    refused = lanes.reserve(NOW, (FAST,), 1, "", latest_us=0)
    assert (refused.count, refused.again_us) == (0, NOW + 110 * MS)
    assert starts(lanes.reserve(NOW + 110 * MS, (FAST,), 2, "", latest_us=0)) == [110 * MS]


def test_who_does_not_wait_is_not_counted_in_a_lane_and_the_others_stay(lanes: Lanes) -> None:
    for worker in ("one", "two", "three"):
        lanes.reserve(NOW, (SLOW, FAST), 1, worker)
    before = lanes.waiting(SLOW)

    assert lanes.reserve(NOW, (SLOW, FAST), 1, "", latest_us=0).waiting == 4
    assert before == lanes.waiting(SLOW)
    assert sorted(before) == ["one", "three", "two"]


def test_a_costly_start_is_granted_before_it_only_if_the_start_is_of_use(lanes: Lanes) -> None:
    """Five units of 10 ms each, after one: the first of them is there in 10 ms, and all of them in 50."""
    lanes.reserve(NOW, (FAST,))
    five = Costs(((5,),))
    refused = lanes.reserve(NOW, (FAST,), 1, costs=five, latest_us=50 * MS - 1)

    assert (refused.count, refused.again_us) == (0, NOW + 50 * MS)
    assert lanes.fields(FAST)[0]["given"] == "1"
    granted = lanes.reserve(NOW, (FAST,), 1, costs=five, latest_us=50 * MS)
    assert (starts(granted), granted.again_us) == ([50 * MS], NOW + 60 * MS), "the next is granted before its start"


# mutants


SENTENCES = sentences(globals())


@pytest.mark.parametrize("mutant", LANE_MUTANTS, ids=lambda mutant: mutant.why)
def test_a_mutant_is_killed(redis_client: redis.Redis, mutant: Mutant) -> None:
    assert originals()[mutant.file].count(mutant.old) == 1, "the Lua was edited: edit the mutant as well"
    assert complaint(SENTENCES, Lanes(redis_client, sources(mutant))), f"no test notices: {mutant.why}"
