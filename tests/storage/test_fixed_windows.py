"""Fixed windows on a real server: at most N starts in each, whatever happens; and no fewer where N are wanted."""

from __future__ import annotations

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
import redis

from celery_global_rate.limits import duration
from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.lane_reservation import LaneReservation
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.timing import GUARD_S
from celery_global_rate.limits.windows import Calendar

from .lanes import GUARD_US, MOST_WINDOWS, Lane, Lanes, live_all, window_us
from .mutate import FIXED_MUTANTS, Mutant, complaint, originals, sentences, sources
from .replay import HORIZON_US, NOW

SECOND, MS = 1_000_000, 1_000
#: NOW is the begin of a window of ten seconds.
LENGTH_US = 10 * SECOND


@pytest.fixture
def lanes(redis_client: redis.Redis) -> Lanes:
    """Nothing is used."""
    return Lanes(redis_client)


def quota(rate: str, **options: str) -> Bucket:
    """A limit of fixed windows."""
    return Bucket(f"quota-{rate}", "fixed", Limit.in_windows(rate, **options))


def smooth(rate: str, burst: int = 1) -> Bucket:
    limit = Limit.parse(rate, burst)
    assert limit is not None
    return Bucket("smooth", "", limit)


FIVE = quota("5/10s")


# N in each window


def test_a_window_has_n_starts_at_once_and_so_has_the_next(lanes: Lanes) -> None:
    for begin_us in (NOW, NOW + LENGTH_US, NOW + 7 * LENGTH_US):
        answer = lanes.reserve(begin_us, (FIVE,), 9)

        assert answer.starts_us == [begin_us] * 5
        assert answer.slots == [(begin_us,)] * 5
        assert answer.again_us == begin_us + LENGTH_US
        refused = lanes.reserve(begin_us + 3 * SECOND, (FIVE,), 9)
        assert (refused.count, refused.again_us) == (0, begin_us + LENGTH_US)


def test_what_a_window_does_not_use_is_not_saved(lanes: Lanes) -> None:
    assert lanes.reserve(NOW, (FIVE,), 2).count == 2
    assert lanes.reserve(NOW + LENGTH_US, (FIVE,), 9).count == 5


def test_nothing_is_granted_in_the_last_50_ms(lanes: Lanes) -> None:
    end_us = NOW + LENGTH_US
    before = lanes.reserve(end_us - GUARD_US - 1, (FIVE,), 1)
    within = lanes.reserve(end_us - GUARD_US, (FIVE,), 1)

    assert (before.starts_us, before.slots) == ([end_us - GUARD_US - 1], [(NOW,)])
    assert (within.starts_us, within.slots) == ([end_us], [(end_us,)])
    assert GUARD_S * SECOND == GUARD_US, "the worker and the script know the same guard"


def test_a_slot_is_usable_to_the_end_of_its_window_but_25_ms(lanes: Lanes) -> None:
    first = lanes.reserve(NOW, (FIVE,), 1)
    last = lanes.reserve(NOW + LENGTH_US - 60 * MS, (FIVE,), 1)
    of_the_next = lanes.reserve(NOW + LENGTH_US - 20 * MS, (FIVE,), 1)

    assert first.untils_us == last.untils_us == [NOW + LENGTH_US - GUARD_US // 2]
    assert of_the_next.untils_us == [NOW + 2 * LENGTH_US - GUARD_US // 2]


def test_slots_of_the_next_window_are_given_out_from_the_horizon_on(lanes: Lanes) -> None:
    end_us = NOW + LENGTH_US
    lanes.reserve(NOW, (FIVE,), 9)

    assert lanes.reserve(end_us - HORIZON_US - 1, (FIVE,), 9).count == 0
    answer = lanes.reserve(end_us - HORIZON_US, (FIVE,), 9)
    assert (answer.starts_us, answer.slots) == ([end_us] * 5, [(end_us,)] * 5)
    assert answer.again_us == end_us + LENGTH_US


def test_the_rest_of_a_window_comes_before_the_next_one(lanes: Lanes) -> None:
    end_us, now = NOW + LENGTH_US, NOW + LENGTH_US - 80 * MS
    lanes.reserve(NOW, (FIVE,), 3)

    assert lanes.reserve(now, (FIVE,), 9).starts_us == [now] * 2 + [end_us] * 5


def test_windows_begin_with_their_offset(lanes: Lanes) -> None:
    later = quota("5/10s", offset="4s")
    assert lanes.reserve(NOW, (later,), 9).again_us == NOW + 4 * SECOND
    assert lanes.reserve(NOW + 4 * SECOND, (later,), 9).slots == [(NOW + 4 * SECOND,)] * 5


def test_two_workers_that_declare_different_limits_never_exceed_the_larger(lanes: Lanes) -> None:
    more = Bucket(FIVE.name, FIVE.window, Limit.in_windows("8/10s"))

    assert [lanes.reserve(NOW, (it,), 9).count for it in (FIVE, more, FIVE, more)] == [5, 3, 0, 0]


def test_windows_that_lie_within_each_other_both_hold(lanes: Lanes) -> None:
    lane = quota("5/10s"), quota("7/m")
    counts = [lanes.reserve(NOW + k * LENGTH_US, lane, 9).count for k in range(7)]

    assert counts == [5, 2, 0, 0, 0, 0, 5]


# beside a smooth limit


def test_all_limits_book_or_none(lanes: Lanes) -> None:
    lane = smooth("10/s", burst=9), FIVE
    given = lanes.reserve(NOW, lane, 9)
    booked = lanes.fields(*lane)
    refused = lanes.reserve(NOW, lane, 9)

    assert (given.count, refused.count, refused.seq, refused.binds) == (5, 0, 0, 1)
    assert [fields["given"] for fields in booked] == ["5", "5"]
    assert [fields["seq"] for fields in booked] == [str(given.seq)] * 2
    assert lanes.fields(*lane) == booked


def test_a_start_that_a_smooth_limit_moves_counts_in_the_window_that_it_moves_to(lanes: Lanes) -> None:
    """At 9.93 s the smooth limit's next slot is at 9.96, in the last 50 ms: the start is at 10 s."""
    lane, now = (smooth("10/s"), FIVE), NOW + LENGTH_US - 70 * MS
    lanes.reserve(NOW + LENGTH_US - 140 * MS, (lane[0],))
    answer = lanes.reserve(now, lane)

    assert answer.starts_us == [NOW + LENGTH_US]
    assert answer.slots[0][1] == NOW + LENGTH_US
    assert lanes.windows(FIVE) == {NOW + LENGTH_US: 1}


def test_a_full_window_holds_when_a_smooth_limit_moves_the_start_on(lanes: Lanes) -> None:
    """The smooth limit's next slot is 50 ms ahead, in a window that is full: the start is in the next window."""
    lane = smooth("10/s"), FIVE
    lanes.reserve(NOW, (FIVE,), 5)
    lanes.reserve(NOW, (lane[0],))
    answer = lanes.reserve(NOW + 50 * MS, lane)

    assert (answer.count, answer.again_us, answer.binds) == (0, NOW + LENGTH_US, 1)


def test_beside_a_smooth_limit_both_hold(lanes: Lanes) -> None:
    lane = smooth("10/s"), FIVE
    starts = [us for at in range(0, 19 * SECOND, 50 * MS) for us in lanes.reserve(NOW + at, lane, 9).starts_us]

    assert starts == [NOW + begin + step * 100 * MS for begin in (0, LENGTH_US) for step in range(5)]


def test_a_start_in_the_next_window_waits_for_the_slot_in_step_which_costs_the_window_nothing(lanes: Lanes) -> None:
    """T = 30 ms, and slots are at -70, -40, -10, 20 ms of the begin: at the begin, that of -10 is too old by 2.5 ms."""
    shared, begin_us = Bucket("shared", "smooth", Limit(30 * MS), is_crossed=True), NOW + LENGTH_US
    lanes.reserve(begin_us - 70 * MS, (shared,))
    answer = lanes.reserve(begin_us - 45 * MS, (shared, FIVE))

    assert answer.slots == [(begin_us + 20 * MS, begin_us)]
    assert lanes.holes(shared) == [begin_us - 40 * MS, begin_us - 10 * MS]


def test_the_earliest_end_of_all_limits_is_that_of_the_slot(lanes: Lanes) -> None:
    lane = smooth("10/s"), FIVE
    now = NOW + LENGTH_US - 55 * MS

    assert lanes.reserve(NOW, lane).untils_us == [NOW + 25 * MS], "the grace"
    slow = Bucket("slow", "", Limit(SECOND))
    assert lanes.reserve(now, (slow, FIVE)).untils_us == [NOW + LENGTH_US - GUARD_US // 2], "the window"
    assert lanes.reserve(now, (FIVE, Bucket("slower", "", Limit(SECOND)))).untils_us == [now + 30 * MS]


# callers that are wrong about now


def test_a_caller_whose_clock_is_ahead_waits_for_the_window_that_it_means(lanes: Lanes) -> None:
    early, late = NOW - 200 * MS, NOW - 80 * MS
    refused = lanes.reserve(early, (FIVE,), 9, seen_us=early + SECOND)
    granted = lanes.reserve(late, (FIVE,), 9, seen_us=late + SECOND)

    assert (refused.count, refused.again_us) == (0, NOW)
    assert (granted.starts_us, granted.slots) == ([NOW] * 5, [(NOW,)] * 5)
    assert granted.untils_us == [NOW + LENGTH_US - GUARD_US // 2] * 5


def test_a_caller_whose_clock_is_behind_counts_in_the_window_that_it_is_in(lanes: Lanes) -> None:
    now = NOW + 200 * MS
    assert lanes.reserve(now, (FIVE,), 3).count == 3
    answer = lanes.reserve(now, (FIVE,), 9, seen_us=now - SECOND)

    assert (answer.starts_us, answer.slots) == ([now] * 2, [(NOW,)] * 2)
    assert answer.untils_us == [NOW + LENGTH_US - GUARD_US // 2] * 2
    assert lanes.windows(FIVE) == {NOW: 5}


def test_nothing_is_granted_beyond_the_windows_that_a_caller_knows(lanes: Lanes) -> None:
    """It means the windows of 0 and 10 s. At 20 s, and where the horizon reaches 20 s, there is nothing for it."""
    beyond_us = NOW + 2 * LENGTH_US
    lanes.reserve(NOW + LENGTH_US, (FIVE,), 5)
    for now in (beyond_us - 80 * MS, beyond_us - 40 * MS, beyond_us, beyond_us + 1, beyond_us + SECOND):
        answer = lanes.reserve(now, (FIVE,), 9, seen_us=NOW)
        assert answer.count == 0
        assert now + HORIZON_US < answer.again_us <= now + 2 * HORIZON_US
        answer = lanes.reserve(now, (smooth("10/s"), FIVE), 9, seen_us=NOW)
        assert answer.count == 0
    assert lanes.windows(FIVE) == {NOW + LENGTH_US: 5}


# a clock that steps back


def test_a_clock_that_steps_back_finds_the_window_full(lanes: Lanes) -> None:
    for k in range(3):
        lanes.reserve(NOW + k * LENGTH_US, (FIVE,), 9)
    for k in (1, 0, 2):
        assert lanes.reserve(NOW + k * LENGTH_US + SECOND, (FIVE,), 9).count == 0


def test_eight_windows_are_known_those_that_were_booked_last_and_all_that_are_not_over(lanes: Lanes) -> None:
    """Ten are booked, of the first three one start each; then the clock steps back."""
    for k in range(10):
        lanes.reserve(NOW + k * LENGTH_US, (FIVE,), 1)
    assert sorted(lanes.windows(FIVE)) == [NOW + k * LENGTH_US for k in range(2, 10)]
    assert lanes.reserve(NOW + 2 * LENGTH_US, (FIVE,), 9).count == 4
    assert lanes.reserve(NOW + LENGTH_US, (FIVE,), 9).count == 5, "it is forgotten"

    assert sorted(lanes.windows(FIVE)) == [NOW + k * LENGTH_US for k in range(1, 10)]
    lanes.reserve(NOW + 10 * LENGTH_US, (FIVE,), 1)
    assert len(lanes.windows(FIVE)) == MOST_WINDOWS
    assert NOW + 2 * LENGTH_US in lanes.windows(FIVE), "the windows of 30 and 40 s are those booked longest ago"
    assert NOW + 4 * LENGTH_US not in lanes.windows(FIVE)


def test_a_window_is_known_after_a_second_step_back_whatever_lies_ahead(lanes: Lanes) -> None:
    """Eight windows are ahead of a clock that has stepped back; then two more are booked, and it steps back by one."""
    for k in range(20, 28):
        lanes.reserve(NOW + k * LENGTH_US, (FIVE,), 9)
    for k in (0, 1):
        assert lanes.reserve(NOW + k * LENGTH_US, (FIVE,), 9).count == 5

    assert lanes.reserve(NOW + SECOND, (FIVE,), 9).count == 0


# giving back


def test_slots_given_back_are_free_in_their_window(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (FIVE,), 4)
    given.used = 1
    lanes.reserve(NOW + SECOND, (FIVE,), 1)

    assert lanes.give_back((FIVE,), given) == [3]
    assert lanes.windows(FIVE) == {NOW: 2}
    assert lanes.fields(FIVE)[0]["given"] == "2"
    assert lanes.reserve(NOW + 2 * SECOND, (FIVE,), 9).count == 3


def test_slots_come_back_in_any_order(lanes: Lanes) -> None:
    given = [lanes.reserve(NOW, (FIVE,), 2) for _ in range(2)]

    assert [lanes.give_back((FIVE,), reservation) for reservation in reversed(given)] == [[2], [2]]


def test_slots_of_a_window_that_is_over_do_not_come_back_to_the_next(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (FIVE,), 4)
    lanes.reserve(NOW + LENGTH_US, (FIVE,), 5)

    assert lanes.give_back((FIVE,), given) == [4]
    assert lanes.windows(FIVE) == {NOW: 0, NOW + LENGTH_US: 5}
    assert lanes.reserve(NOW + LENGTH_US, (FIVE,), 9).count == 0


def test_slots_of_two_windows_come_back_each_to_its_own(lanes: Lanes) -> None:
    given = lanes.reserve(NOW + LENGTH_US - 80 * MS, (FIVE,), 8)
    given.used = 1

    assert lanes.windows(FIVE) == {NOW: 5, NOW + LENGTH_US: 3}
    assert lanes.give_back((FIVE,), given) == [7]
    assert lanes.windows(FIVE) == {NOW: 1, NOW + LENGTH_US: 0}


def test_nothing_comes_back_to_a_state_that_was_lost(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (FIVE,), 4)
    lanes.lose(FIVE)
    assert (lanes.give_back((FIVE,), given), lanes.fields(FIVE)) == ([0], [{}])

    later = lanes.reserve(NOW + 1, (FIVE,), 2)
    before = lanes.fields(FIVE)
    assert (lanes.give_back((FIVE,), given), lanes.fields(FIVE)) == ([0], before)
    assert lanes.give_back((FIVE,), later) == [2]


def test_nothing_comes_back_to_a_window_that_is_forgotten(lanes: Lanes) -> None:
    given = [lanes.reserve(NOW + k * LENGTH_US, (FIVE,), 2) for k in range(MOST_WINDOWS + 1)]
    before = lanes.windows(FIVE)

    assert lanes.give_back((FIVE,), given[0]) == [0]
    assert lanes.windows(FIVE) == before
    assert lanes.give_back((FIVE,), given[1]) == [2]


def test_no_more_comes_back_than_is_booked(lanes: Lanes) -> None:
    given = lanes.reserve(NOW, (FIVE,), 4)

    assert [lanes.give_back((FIVE,), given), lanes.give_back((FIVE,), given)] == [[4], [0]]
    assert lanes.windows(FIVE) == {NOW: 0}
    assert lanes.reserve(NOW, (FIVE,), 9).count == 5


def test_each_limit_takes_back_for_itself(lanes: Lanes) -> None:
    lane = smooth("10/s", burst=4), FIVE
    given = lanes.reserve(NOW, lane, 3)
    lanes.lose(FIVE)
    assert lanes.give_back(lane, given) == [3, 0]

    given = lanes.reserve(NOW, lane, 3)
    lanes.lose(lane[0])
    assert lanes.give_back(lane, given) == [0, 3]


# floors, overrides, the others, expiry


def test_no_start_is_before_a_floor_and_a_window_keeps_what_is_left_of_it(lanes: Lanes) -> None:
    floor_us = NOW + 55 * MS
    answer = lanes.reserve(NOW, (FIVE,), 9, overrides=[f"1:a:{floor_us}:{{}}"])

    assert (answer.starts_us, answer.slots) == ([floor_us] * 5, [(NOW,)] * 5)
    text = f"2:a:{NOW + LENGTH_US - 30 * MS}:{{}}"
    answer = lanes.reserve(NOW + LENGTH_US - 90 * MS, (FIVE,), 9, overrides=[text])
    assert answer.starts_us == [NOW + LENGTH_US] * 5


def test_a_higher_override_is_returned_and_nothing_granted(lanes: Lanes) -> None:
    text = f"7:b:{NOW}:{{}}"
    lanes.reserve(NOW, (FIVE,), 1, overrides=[text])
    before = lanes.fields(FIVE)
    answer = lanes.reserve(NOW, (FIVE,), 1)

    assert (answer.count, answer.which, answer.override) == (0, 0, text)
    assert lanes.fields(FIVE) == before


def test_a_grant_is_at_most_twice_the_fair_share_of_the_window_and_at_least_one(lanes: Lanes) -> None:
    """A hundred for four workers: fifty; then half of what is left. The next window counts within the horizon."""
    many = quota("100/10s")
    for worker in ("two", "three", "four"):
        lanes.reserve(NOW, (many,), 1, worker)
    lanes.client.delete(f"{{test}}:limit:{many.name}:fixed")

    assert lanes.reserve(NOW, (many,), 99, "one").count == 50
    assert lanes.reserve(NOW, (many,), 99, "two").count == 25
    before_the_end = NOW + LENGTH_US - 80 * MS
    for worker in ("one", "two", "three", "four"):
        lanes.reserve(before_the_end, (many,), 1, worker)
    assert lanes.reserve(before_the_end, (many,), 99, "one").count == 60, (
        "half of 21 that are left and of the next hundred"
    )


def test_what_can_no_longer_be_granted_does_not_count_for_the_fair_share(lanes: Lanes) -> None:
    """In the last 50 ms only the next window counts: twice a fourth of five."""
    now = NOW + LENGTH_US - 40 * MS
    for worker in ("two", "three", "four"):
        lanes.reserve(now, (Bucket(FIVE.name, FIVE.window, Limit.in_windows("1/10s")),), 9, worker)
    lanes.lose(FIVE)

    assert lanes.reserve(now, (FIVE,), 9, "one").count == 2


def test_what_another_deploy_has_used_beyond_n_does_not_count_against_the_next_window(lanes: Lanes) -> None:
    lanes.reserve(NOW, (Bucket(FIVE.name, FIVE.window, Limit.in_windows("100/10s")),), 99)

    assert lanes.reserve(NOW + LENGTH_US - 80 * MS, (FIVE,), 9).count == 5


def test_a_state_lives_a_minute_longer_than_the_windows_that_it_may_know(lanes: Lanes) -> None:
    key = f"{{test}}:limit:{FIVE.name}:fixed"
    before = time.monotonic()
    lanes.reserve(NOW + SECOND, (FIVE,), 1)
    left_ms = lanes.client.pttl(key)
    passed_ms = (time.monotonic() - before) * 1000

    assert 79_000 - passed_ms - 1 <= left_ms <= 79_000
    lanes.client.pexpire(key, 90_000)
    lanes.reserve(NOW + SECOND, (FIVE,), 1)
    assert lanes.client.pttl(key) > 89_000, "never shortened"


def test_no_digit_is_lost_up_to_the_year_2200(lanes: Lanes) -> None:
    year_2200 = 7_258_118_399_999_999
    given = lanes.reserve(year_2200, (FIVE,), 3)
    given.used = 1
    lanes.give_back((FIVE,), given)

    assert given.starts_us == [year_2200 + 1] * 3
    assert lanes.windows(FIVE) == {year_2200 + 1: 1}


# any life


def test_no_window_has_more_than_n_starts_and_many_have_n(lanes: Lanes) -> None:
    starts, full = live_all(lanes, range(12), fixed=0.6)

    assert starts > 400
    assert full > 6


@pytest.mark.long
def test_no_window_has_more_than_n_starts_in_thousands_of_lives(lanes: Lanes) -> None:
    starts, full = live_all(lanes, range(100, 2600), fixed=0.6)

    assert starts > 125_000
    assert full > 1500


# none is lost


def greedy_starts(lanes: Lanes, lane: Lane, workers: int, until_us: int) -> list[int]:
    """The starts of workers that ask every 20 to 80 ms for as many as there may be."""
    draw = random.Random(workers)
    turns = [(NOW + draw.randrange(20 * MS, 80 * MS), f"worker-{number}") for number in range(workers)]
    starts = []
    while turns[0][0] < until_us:
        now, worker = turns[0]
        starts += lanes.reserve(now, lane, 100, worker).starts_us
        heapq.heapreplace(turns, (now + draw.randrange(20 * MS, 80 * MS), worker))
    return starts


#: A limit of fixed windows, the smooth one beside it, and how long it takes to use a window up, in seconds.
CELLS = [
    pytest.param("30/s", None, 0.08, id="30/s"),
    pytest.param("250/3s", None, 0.7, id="250/3s"),
    pytest.param("100/10s", "20/s", 5.1, id="100/10s under 20/s"),
    pytest.param("40/2s", "21/s", 1.95, id="40/2s under 21/s"),
]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(("rate", "beside", "takes_s"), CELLS)
def test_every_window_has_exactly_n(lanes: Lanes, rate: str, beside: str | None, takes_s: float, workers: int) -> None:
    """Alone, a window is used up at once: in a few calls of each worker, which gets half of what is left if four wait.

    Beside a smooth limit, N starts take N T; a window of 2 s has 1.95 s for 40 starts, and 21/s need 1.90.
    """
    lane = (*([smooth(beside)] if beside else []), quota(rate))
    length_us = window_us(lane[-1].limit, NOW)[1] - window_us(lane[-1].limit, NOW)[0]
    begins = [window_us(lane[-1].limit, NOW)[1] + k * length_us for k in range(3)]
    starts = greedy_starts(lanes, lane, workers, begins[-1] + length_us)
    for begin_us in begins:
        inside = [start_us - begin_us for start_us in starts if 0 <= start_us - begin_us < length_us]
        assert len(inside) == lane[-1].limit.burst
        assert max(inside) <= takes_s * SECOND


# days, months, and clocks that are put forward or back


def edges(zone: str, first: datetime, days: int, is_edge: Callable[[datetime, datetime], bool]) -> Iterator[int]:
    """Where windows begin in a time zone: found by looking at its clock every 15 minutes."""
    local, step_s = ZoneInfo(zone), 900
    before = int(first.replace(tzinfo=timezone.utc).timestamp())
    for at in range(before + step_s, before + days * 86_400, step_s):
        was, now = datetime.fromtimestamp(at - step_s, local), datetime.fromtimestamp(at, local)
        if is_edge(was, now):
            yield at * SECOND


def changes(zone: str, begin_us: int, end_us: int) -> list[int]:
    """Where its clock is put forward or back, of the whole hours and half hours between."""
    local, half_us = ZoneInfo(zone), 1800 * SECOND
    offsets = {
        at: datetime.fromtimestamp(at / SECOND, local).utcoffset() for at in range(begin_us, end_us + half_us, half_us)
    }
    return [at for at in offsets if at > begin_us and offsets[at] != offsets[at - half_us]]


def another_day(was: datetime, now: datetime) -> bool:
    return was.date() != now.date()


def another_month(was: datetime, now: datetime) -> bool:
    return was.month != now.month


def another_hour(was: datetime, now: datetime) -> bool:
    return was.hour != now.hour


def another_week(was: datetime, now: datetime) -> bool:
    return was.isocalendar()[1] != now.isocalendar()[1]


def visit(lanes: Lanes, bucket: Bucket, begins: list[int], zone: str) -> list[int]:
    """The starts of a worker that asks at the begin of windows, where the clock changes, and just before the end."""
    starts: list[int] = []
    for begin_us, end_us in zip(begins, begins[1:]):
        at_changes = [at + step for at in changes(zone, begin_us, end_us) for step in (-1, 0, 1)]
        left = bucket.limit.burst
        for now in [begin_us, begin_us + 1, *at_changes, *(end_us - ms * MS for ms in (200, 100, 90))]:
            starts += usable(lanes.reserve(now, (bucket,), 2), end_us, [now] * 2)
            left -= 2
        now = end_us - GUARD_US - 1
        starts += usable(lanes.reserve(now, (bucket,), left), end_us, [now] * left)
        for before_us in (GUARD_US + 1, GUARD_US, GUARD_US // 2, 1):
            of_the_next = lanes.reserve(end_us - before_us, (bucket,), 2)
            assert of_the_next.starts_us == [end_us] * 2
            lanes.give_back((bucket,), of_the_next)
    return starts


def usable(answer: LaneReservation, end_us: int, starts_us: list[int]) -> list[int]:
    """The starts, which are these, and usable to the end of their window but 25 ms."""
    assert answer.starts_us == starts_us
    assert answer.untils_us == [end_us - GUARD_US // 2] * len(starts_us)
    return starts_us


def day(month: int, day: int) -> datetime:
    return datetime(2027, month, day)


#: A rate, its options, from when on and for how many days, and what begins a window; and how many hours windows have.
CALENDARS = [
    ("d", {"timezone": "Europe/Berlin"}, (day(3, 26), 5), another_day, {23, 24}),
    ("d", {"timezone": "Europe/Berlin"}, (day(10, 29), 5), another_day, {24, 25}),
    ("d", {"timezone": "America/New_York"}, (day(3, 12), 5), another_day, {23, 24}),
    ("d", {"timezone": "America/New_York"}, (day(11, 5), 5), another_day, {24, 25}),
    ("d", {"timezone": "Australia/Lord_Howe"}, (day(10, 1), 5), another_day, {23.5, 24}),
    ("d", {"timezone": "Australia/Lord_Howe"}, (day(4, 2), 5), another_day, {24, 24.5}),
    ("7d", {"timezone": "Europe/Berlin"}, (day(3, 10), 40), another_week, {167, 168}),
    ("month", {}, (day(1, 20), 400), another_month, {672, 720, 744}),
    ("month", {"timezone": "Europe/Berlin"}, (day(1, 20), 400), another_month, {672, 720, 743, 744, 745}),
    ("month", {"timezone": "Australia/Lord_Howe"}, (day(1, 20), 400), another_month, {672, 720, 744, 720.5, 743.5}),
    ("month", {"offset": "4d"}, (day(1, 20), 100), another_month, {672, 744}),
    ("d", {"offset": "9h"}, (day(3, 26), 5), another_day, {24}),
    ("h", {"offset": "15m"}, (day(3, 26), 1), another_hour, {1}),
]


@pytest.mark.parametrize(
    ("period", "options", "span", "is_edge", "hours"),
    CALENDARS,
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else None,
)
def test_days_and_months_have_exactly_n_with_an_hour_more_or_less(
    lanes: Lanes,
    period: str,
    options: dict[str, str],
    span: tuple[datetime, int],
    is_edge: Callable[[datetime, datetime], bool],
    hours: set[float],
) -> None:
    """Also where they are asked for in the last 200 ms; and none in the last 50."""
    bucket, zone = quota(f"40/{period}", **options), options.get("timezone", "UTC")
    later_us = int(duration.parse(options["offset"])) * SECOND if "offset" in options else 0
    begins = [at + later_us for at in edges(zone, *span, is_edge)]
    assert {(end_us - begin_us) / SECOND / 3600 for begin_us, end_us in zip(begins, begins[1:])} == hours
    starts = visit(lanes, bucket, begins, zone)
    for begin_us, end_us in zip(begins, begins[1:]):
        assert sum(begin_us <= start_us < end_us - GUARD_US for start_us in starts) == 40
        assert not any(end_us - GUARD_US <= start_us < end_us for start_us in starts)


def test_workers_that_do_not_agree_when_a_day_ends_start_no_more_than_both_would(lanes: Lanes) -> None:
    """One has older data about its time zone, so that its clock is not put forward: its days end an hour later.

    Each keeps to its own days; where a day of both begins at one instant, together. By what both allow, a day of the
    first may have the N of its own and those of one day of the other, as both use theirs up when they begin.
    """
    knows, older = (
        Bucket("quota", "fixed-d-Europe/Berlin", Limit.in_windows("20/d", timezone=zone))
        for zone in ("Europe/Berlin", "Etc/GMT-1")
    )
    starts: dict[Bucket, list[int]] = {knows: [], older: []}
    begin_us = int(datetime(2027, 3, 26, 23, tzinfo=timezone.utc).timestamp()) * SECOND
    for quarter in range(4 * 24 * 6):
        now = begin_us + quarter * 900 * SECOND
        for bucket in random.Random(quarter).sample([knows, older], 2):
            starts[bucket] += lanes.reserve(now, (bucket,), random.Random(quarter).choice([1, 5, 30])).starts_us
    used = {bucket: Counter(calendar(bucket).edges(at)[0] for at in starts[bucket]) for bucket in starts}
    together = used[knows] + used[older]
    shared = used[knows].keys() & used[older].keys()

    assert all(count <= 20 for one in used.values() for count in one.values())
    assert shared
    assert all(together[at] == 20 for at in shared)
    in_days_of_one = Counter(calendar(knows).edges(at)[0] for at in starts[knows] + starts[older])
    assert max(in_days_of_one.values()) == 40


def calendar(bucket: Bucket) -> Calendar:
    assert isinstance(bucket.limit.window, Calendar)
    return bucket.limit.window


# mutants


SENTENCES = sentences(globals())


@pytest.mark.parametrize("mutant", FIXED_MUTANTS, ids=lambda mutant: mutant.why)
def test_a_mutant_is_killed(redis_client: redis.Redis, mutant: Mutant) -> None:
    assert originals()[mutant.file].count(mutant.old) == 1, "the Lua was edited: edit the mutant as well"
    assert complaint(SENTENCES, Lanes(redis_client, sources(mutant))), f"no test notices: {mutant.why}"
