"""Starts that cost several units, on a real server: what each limit books, when it is granted, and what comes back."""

from __future__ import annotations

import pytest
import redis

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.limit import Limit

from .lanes import GUARD_US, Lanes, live_all, owed_of
from .mutate import COST_MUTANTS, Mutant, complaint, originals, sentences, sources
from .replay import HORIZON_US, NOW

SECOND, MS = 1_000_000, 1_000
D_US = 25 * MS


@pytest.fixture
def lanes(redis_client: redis.Redis) -> Lanes:
    """Full buckets."""
    return Lanes(redis_client)


def smooth(name: str, interval_us: int, burst: int = 1) -> Bucket:
    """A limit that lanes cross."""
    return Bucket(name, "smooth", Limit(interval_us, burst=burst), is_crossed=True)


def fixed(rate: str) -> Bucket:
    return Bucket("fixed", "fixed", Limit.in_windows(rate))


def sliding(rate: str) -> Bucket:
    return Bucket("sliding", "sliding", Limit.in_any(rate))


TEN_MS, FIFTY_MS = smooth("tokens", 10 * MS), smooth("requests", 50 * MS)
#: A window of which begins at NOW.
FIVE = fixed("5/10s")


# smooth


def test_a_start_takes_as_many_slots_as_it_costs(lanes: Lanes) -> None:
    answer = lanes.spend(NOW, (TEN_MS,), 3, 1, 2)

    assert [us - NOW for us in answer.starts_us] == [0, 10 * MS, 30 * MS]
    assert [us - NOW for (us,) in answer.slots] == [-20 * MS, 10 * MS, 20 * MS]
    assert answer.untils_us == [us + D_US for us in answer.starts_us]
    assert lanes.fields(TEN_MS)[0]["given"] == "6"


def test_the_burst_pays_first(lanes: Lanes) -> None:
    bucket = smooth("burst", 10 * MS, burst=10)
    answer = lanes.spend(NOW, (bucket,), 6, 6)

    assert [us - NOW for us in answer.starts_us] == [0, 20 * MS]


def test_what_is_larger_than_the_burst_is_paid_from_the_grant_on(lanes: Lanes) -> None:
    lanes.reserve(NOW, (TEN_MS,))
    large = lanes.spend(NOW, (TEN_MS,), 500, worker="large")
    behind = lanes.spend(NOW, (TEN_MS,), 1, worker="small")

    assert [us - NOW for us in large.starts_us] == [5000 * MS]
    assert large.untils_us == [NOW + 5000 * MS + D_US]
    assert (behind.count, behind.again_us) == (0, NOW + 5010 * MS)


def test_it_is_granted_when_its_first_slot_enters_the_horizon(lanes: Lanes) -> None:
    lanes.reserve(NOW, (TEN_MS,), 100)
    refused = lanes.spend(NOW, (TEN_MS,), 500)
    late = lanes.spend(NOW + 9 * MS, (TEN_MS,), 500)

    assert (refused.count, refused.again_us) == (0, NOW + 110 * MS)
    assert (late.count, late.again_us) == (0, NOW + 110 * MS)
    assert lanes.spend(NOW + 10 * MS, (TEN_MS,), 500).starts_us == [NOW + 5100 * MS]


def test_the_other_limits_of_its_lane_are_free_for_the_others_meanwhile(lanes: Lanes) -> None:
    lanes.reserve(NOW, (TEN_MS, FIFTY_MS))
    lanes.spend(NOW, (TEN_MS, FIFTY_MS), (500, 1))
    others = [lanes.reserve(NOW + k * 100 * MS, (FIFTY_MS,), 9) for k in range(49)]

    assert sum(answer.count for answer in others) == 98
    assert [us - NOW for us in others[0].starts_us] == [50 * MS, 100 * MS]


def test_what_costs_nothing_passes_a_limit(lanes: Lanes) -> None:
    lanes.reserve(NOW, (TEN_MS,), 100)
    booked = lanes.fields(TEN_MS)
    answer = lanes.spend(NOW, (TEN_MS, FIFTY_MS), (0, 1), (0, 0), (0, 1))

    assert [us - NOW for us in answer.starts_us] == [0, 0, 50 * MS]
    assert lanes.fields(TEN_MS) == booked
    assert lanes.fields(FIFTY_MS)[0]["given"] == "2"


def test_what_costs_nothing_waits_for_a_floor(lanes: Lanes) -> None:
    texts = [f"1:a:{NOW + 60 * MS}:{{}}"]
    lanes.client.hset("{test}:records", "tokens", texts[0])

    assert lanes.reserve(NOW, (TEN_MS,), 1, overrides=texts).starts_us == [NOW + 60 * MS]


def test_no_slot_is_before_the_last_in_hand(lanes: Lanes) -> None:
    answer = lanes.spend(NOW, (TEN_MS, FIFTY_MS), (0, 1), after_us=NOW + 30 * MS)

    assert answer.starts_us == [NOW + 30 * MS]


def test_the_fair_share_counts_units(lanes: Lanes) -> None:
    """Thirteen are there up to the horizon, two of them saved: each of three that wait gets 26/3 at most."""
    for worker in ("two", "three"):
        lanes.reserve(NOW - SECOND, (TEN_MS,), 100, worker)
    answer = lanes.spend(NOW - 800 * MS, (TEN_MS,), *[3] * 9, worker="one")

    assert answer.waiting == 3
    assert answer.count == 2


def test_holes_are_taken_in_a_row(lanes: Lanes) -> None:
    """A slot of 100 ms skips nine of 10 ms; two of them in a row are free, and then not any more three of them."""
    slow = smooth("slow", 100 * MS)
    lanes.reserve(NOW, (slow, TEN_MS))
    lanes.reserve(NOW, (slow, TEN_MS))
    assert lanes.holes(TEN_MS) == [NOW + k * 10 * MS for k in range(1, 10)]
    answer = lanes.spend(NOW + 30 * MS, (TEN_MS,), 2)

    assert answer.starts_us == [NOW + 30 * MS]
    assert lanes.holes(TEN_MS) == [NOW + k * 10 * MS for k in (1, *range(4, 10))]
    assert lanes.spend(NOW + 30 * MS, (TEN_MS,), 3).slots == [(NOW + 40 * MS,)]


def test_a_start_waits_for_no_later_holes_where_older_ones_are_of_use(lanes: Lanes) -> None:
    slow = smooth("slow", 100 * MS)
    lanes.reserve(NOW, (slow, TEN_MS))
    lanes.reserve(NOW, (slow, TEN_MS))
    answer = lanes.spend(NOW + 85 * MS, (TEN_MS,), 2)

    assert answer.slots == [(NOW + 70 * MS,)]
    assert answer.starts_us == [NOW + 85 * MS]


def test_a_large_cost_takes_nothing_that_is_booked(lanes: Lanes) -> None:
    lanes.reserve(NOW, (TEN_MS,))

    assert lanes.spend(NOW + 60 * MS, (TEN_MS,), 10).starts_us == [NOW + 100 * MS]


def test_a_slot_of_one_unit_is_not_granted_beyond_the_horizon(lanes: Lanes) -> None:
    """The next slot of 10 ms is 90 ms ahead, in the guard of a window that ends 130 ms ahead."""
    now = NOW + 10 * SECOND - 130 * MS
    lanes.reserve(now, (TEN_MS,), 9)
    answer = lanes.spend(now, (TEN_MS, FIVE), 1)

    assert (answer.count, answer.again_us) == (0, NOW + 10 * SECOND)


def test_what_comes_back_is_free_in_a_row_in_any_order(lanes: Lanes) -> None:
    for order in ([0, 1], [1, 0]):
        lanes.client.flushdb()
        what_comes_back_is_free_in_a_row(lanes, order)


def what_comes_back_is_free_in_a_row(lanes: Lanes, order: list[int]) -> None:
    lanes.reserve(NOW, (TEN_MS,))
    given = lanes.spend(NOW, (TEN_MS, FIFTY_MS), (4, 1), (2, 0))
    for place in order:
        given.used, given.count = place, place + 1
        assert lanes.give_back((TEN_MS, FIFTY_MS), given) == [[4, 1], [2, 0]][place]

    assert lanes.holes(TEN_MS) == [NOW + k * 10 * MS for k in range(1, 7)]
    assert lanes.fields(TEN_MS)[0]["holes"].count(":") == 1, "they are one range"
    assert lanes.give_back((TEN_MS, FIFTY_MS), given)[0] == 0, "taken back twice"
    assert lanes.fields(TEN_MS)[0]["given"] == "1"


def test_a_repeat_takes_nothing_back_of_what_is_partly_booked_again(lanes: Lanes) -> None:
    lanes.reserve(NOW, (TEN_MS,))
    given = lanes.spend(NOW, (TEN_MS,), 4)
    lanes.give_back((TEN_MS,), given)
    lanes.reserve(NOW + 10 * MS, (TEN_MS,))

    assert lanes.give_back((TEN_MS,), given) == [0]
    assert lanes.holes(TEN_MS) == [NOW + k * 10 * MS for k in (2, 3, 4)]


def test_what_has_passed_a_limit_does_not_come_back_there(lanes: Lanes) -> None:
    lanes.reserve(NOW, (FIFTY_MS,))
    given = lanes.spend(NOW, (TEN_MS, FIFTY_MS), (1, 0), (1, 1))

    assert lanes.give_back((TEN_MS, FIFTY_MS), given) == [2, 1]
    assert lanes.fields(FIFTY_MS)[0]["holes"].split()[2:] == [f"{NOW + 50 * MS}:1"]


def test_a_state_lives_until_its_largest_cost_is_paid(lanes: Lanes) -> None:
    """A missing bucket has saved as much as the next start costs."""
    lanes.spend(NOW, (TEN_MS,), 500)
    lanes.client.persist("{test}:limit:tokens:smooth")
    lanes.reserve(NOW + 5000 * MS, (TEN_MS,))

    assert 64_000 < lanes.client.pttl("{test}:limit:tokens:smooth") <= 65_010


# fixed windows


def test_a_window_holds_n_units(lanes: Lanes) -> None:
    assert lanes.spend(NOW, (FIVE,), 2, 2, 2).starts_us == [NOW, NOW]
    assert lanes.spend(NOW, (FIVE,), 1).count == 1
    assert lanes.windows(FIVE) == {NOW: 5}


def test_what_is_larger_than_n_has_a_window_to_itself_and_the_next_ones_pay(lanes: Lanes) -> None:
    """12 of 5: two windows are full, and of the third 2 are gone."""
    lanes.spend(NOW, (FIVE,), 1)
    assert lanes.spend(NOW, (FIVE,), 12).count == 0
    assert lanes.spend(NOW + 10 * SECOND, (FIVE,), 12).count == 1
    counts = [lanes.spend(NOW + k * 10 * SECOND, (FIVE,), *[1] * 9).count for k in range(1, 5)]

    assert counts == [0, 0, 3, 5]


def test_what_it_owes_comes_back_with_it(lanes: Lanes) -> None:
    given = lanes.spend(NOW, (FIVE,), 12)
    assert owed_of(lanes.fields(FIVE)[0]) == 7
    assert lanes.give_back((FIVE,), given) == [12]

    assert lanes.windows(FIVE) == {NOW: 0}
    assert lanes.spend(NOW + 10 * SECOND, (FIVE,), *[1] * 9).count == 5


def test_a_start_that_another_limit_lets_wait_counts_in_its_own_window(lanes: Lanes) -> None:
    """3000 of 10 ms: 30 s, in the fourth window of 10 s."""
    lanes.reserve(NOW, (TEN_MS,))
    answer = lanes.spend(NOW + 5 * MS, (TEN_MS, FIVE), (3000, 1))

    assert answer.starts_us == [NOW + 30 * SECOND]
    assert answer.untils_us == [NOW + 30 * SECOND + D_US]
    assert lanes.windows(FIVE) == {NOW + 30 * SECOND: 1}
    assert [lanes.spend(NOW + k * 10 * SECOND, (FIVE,), *[1] * 9).count for k in range(4)] == [5, 5, 5, 4]


def test_no_such_start_ends_in_the_guard_of_a_window(lanes: Lanes) -> None:
    answer = lanes.spend(NOW, (TEN_MS, FIVE), (2999, 1))

    assert answer.starts_us == [NOW]
    answer = lanes.spend(NOW, (TEN_MS, FIVE), (2999, 1))
    assert answer.starts_us == [NOW + 30 * SECOND]
    assert 29_990 * MS > 30_000 * MS - GUARD_US


def test_windows_of_days_are_not_foretold(lanes: Lanes) -> None:
    """A start three days ahead: where days differ in length, its window may be another one."""
    day, slow = fixed("5/d"), smooth("slow", 60 * SECOND)
    lanes.reserve(NOW, (slow,))

    assert lanes.spend(NOW + 60 * SECOND, (slow, day), (3 * 1440, 1)).count == 0
    assert lanes.spend(NOW + 60 * SECOND, (slow, day), (1440, 1)).count == 1


# sliding windows


def test_a_costly_start_waits_until_enough_has_left(lanes: Lanes) -> None:
    bucket = sliding("5/10s")
    for k in range(5):
        lanes.spend(NOW + k * SECOND, (bucket,), 1)
    answer = lanes.spend(NOW + 9950 * MS, (bucket,), 3)

    assert answer.starts_us == [NOW + 12 * SECOND]
    assert lanes.spend(NOW + 9950 * MS, (bucket,), 1).again_us == NOW + 13 * SECOND


def test_it_is_booked_when_its_first_unit_can_be_had(lanes: Lanes) -> None:
    """Who asks for one at a time would take what leaves the log before there are three."""
    bucket = sliding("5/10s")
    for k in range(5):
        lanes.spend(NOW + k * SECOND, (bucket,), 1)
    refused = lanes.spend(NOW + 9 * SECOND, (bucket,), 3)

    assert (refused.count, refused.again_us) == (0, NOW + 10 * SECOND)
    assert lanes.spend(NOW + 10 * SECOND - HORIZON_US, (bucket,), 3).count == 1


def test_what_is_larger_than_n_is_booked_n_by_n(lanes: Lanes) -> None:
    """12 of 5: two periods are full, and in the third 3 are free."""
    bucket = sliding("5/10s")
    assert lanes.spend(NOW, (bucket,), 12).starts_us == [NOW]
    assert lanes.logs(bucket) == [[(NOW, 5), (NOW + 10 * SECOND, 5), (NOW + 20 * SECOND, 2)]]
    assert lanes.spend(NOW + SECOND, (bucket,), 1).again_us == NOW + 20 * SECOND
    assert lanes.spend(NOW + 20 * SECOND, (bucket,), *[1] * 9).count == 3


def test_what_is_larger_than_n_begins_when_the_log_is_empty(lanes: Lanes) -> None:
    bucket = sliding("5/10s")
    lanes.spend(NOW, (bucket,), 1)

    assert lanes.spend(NOW, (bucket,), 12).starts_us == [NOW + 10 * SECOND]


def test_units_leave_the_log_together(lanes: Lanes) -> None:
    bucket = sliding("5/10s")
    given = lanes.spend(NOW, (bucket,), 3, 1)
    given.used = given.count = 1
    given.used = 0

    assert lanes.give_back((bucket,), given, NOW + SECOND) == [3]
    assert lanes.logs(bucket) == [[(NOW, 1)]]
    assert lanes.spend(NOW + SECOND, (bucket,), *[1] * 9).count == 4


def test_a_large_one_comes_back_from_all_its_entries(lanes: Lanes) -> None:
    bucket = sliding("5/10s")
    given = lanes.spend(NOW, (bucket,), 12)

    assert lanes.give_back((bucket,), given, NOW + SECOND) == [12]
    assert lanes.logs(bucket) == [[]]


# any life


def test_no_window_holds_more_units_than_promised(lanes: Lanes) -> None:
    starts, full = live_all(lanes, range(20), fixed=0.3, sliding=0.4, costs=0.6)

    assert starts > 500
    assert full > 6


@pytest.mark.long
@pytest.mark.parametrize(("fixed", "sliding"), [(0, 0), (0.7, 0), (0.1, 0.7)])
def test_no_window_holds_more_units_than_promised_in_thousands_of_lives(
    lanes: Lanes, fixed: float, sliding: float
) -> None:
    starts, _ = live_all(lanes, range(100, 2600), fixed=fixed, sliding=sliding, costs=0.6)

    assert starts > 100_000


# mutants


SENTENCES = sentences(globals())


def test_the_scripts_as_they_are_pass(lanes: Lanes) -> None:
    assert len(SENTENCES) > 20
    assert complaint(SENTENCES, lanes) is None


@pytest.mark.parametrize("mutant", COST_MUTANTS, ids=lambda mutant: mutant.why)
def test_a_mutant_is_killed(redis_client: redis.Redis, mutant: Mutant) -> None:
    assert originals()[mutant.file].count(mutant.old) == 1, "the Lua was edited: edit the mutant as well"
    assert complaint(SENTENCES, Lanes(redis_client, sources(mutant))), f"no test notices: {mutant.why}"
