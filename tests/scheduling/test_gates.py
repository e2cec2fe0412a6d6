"""Where lanes wait for a limit that they share, without a scheduler."""

from __future__ import annotations

import sys

from celery_global_rate.limits.bucket import OWN, Bucket
from celery_global_rate.limits.limit import Limit
from celery_global_rate.scheduling.gates import FOLLOW_S, Gates
from celery_global_rate.scheduling.lane import Lane

SHARED = Bucket("api", "smooth", Limit(50_000), is_crossed=True)


def lanes(count: int) -> list[Lane]:
    """Lanes of which each has 1/s for itself and 20/s with the others; the first one has waited longest."""
    found = [Lane(f"t{number}", (Bucket(f"t{number}", OWN, Limit(1_000_000)), SHARED)) for number in range(count)]
    for number, lane in enumerate(found):
        lane.waiting_since = float(number)
    return found


def stopped(lane: Lane) -> Lane:
    """One that the shared limit has stopped."""
    lane.binding, lane.limit = SHARED, SHARED.limit
    return lane


def test_without_a_gate_nobody_waits() -> None:
    assert not Gates().keep(lanes(1)[0])


def test_as_many_are_let_through_as_there_are_slots_twice_over_and_those_first_that_waited_longest() -> None:
    """Of 20/s two within the horizon: four, and of two workers two for each."""
    for workers, expected in ((1, 4), (2, 2), (40, 1)):
        gates, waiting = Gates(), lanes(10)
        stopped(waiting[0]).waiting = workers
        gates.close(waiting[0], 7.0)
        for lane in reversed(waiting):
            assert gates.keep(stopped(lane))

        assert gates.open_due(6.9) == []
        assert gates.open_due(7.0) == waiting[:expected]
        assert gates.next_at == 7.0 + FOLLOW_S
        assert gates.open_due(7.0 + FOLLOW_S) == waiting[expected : 2 * expected]


def test_few_that_wait_share_the_slots() -> None:
    """Two lanes and four slots."""
    gates, waiting = Gates(), lanes(2)
    gates.close(stopped(waiting[0]), 7.0)
    for lane in waiting:
        gates.keep(stopped(lane))

    assert [lane.most_wanted for lane in gates.open_due(7.0)] == [2, 2]
    assert waiting[0].asks(2, 7.0).wanted == 2
    assert waiting[0].most_wanted == sys.maxsize
    assert gates.next_at == float("inf")
    assert not gates.keep(waiting[0])


def test_a_lane_with_a_slower_limit_of_its_own_passes_where_few_wait() -> None:
    """It asks when its own limit has a slot, or would lose it; where many wait, it waits behind them."""
    gates, (first, own, *others) = Gates(), lanes(10)
    gates.close(stopped(first), 7.0)
    gates.keep(first)
    assert not gates.keep(own)
    for lane in others:
        gates.keep(stopped(lane))

    assert gates.keep(own)


def test_a_lane_waits_at_the_limit_that_has_stopped_it_even_where_many_wait_for_another_one() -> None:
    """It has waited longest, so it would take a turn of the others each time, and get nothing."""
    gates, others, mail = Gates(), lanes(10), Bucket("mail", "smooth", Limit(100_000), is_crossed=True)
    lane = Lane("both", (SHARED, mail))
    lane.binding, lane.limit = mail, mail.limit
    gates.close(stopped(others[0]), 7.0)
    gates.close(lane, 8.0)
    for each in (lane, *map(stopped, others)):
        assert gates.keep(each)
    assert gates.keep(lane)

    assert lane not in gates.open_due(7.0)
    assert lane in gates.open_due(8.0)


def test_a_gate_opens_at_once_if_its_limit_changes() -> None:
    gates, (lane,) = Gates(), lanes(1)
    gates.close(stopped(lane), 3600.0)
    gates.keep(lane)
    gates.reopen(lane.buckets, 5.0)

    assert gates.open_due(5.0) == [lane]


def test_who_leaves_does_not_wait_any_more() -> None:
    gates, waiting = Gates(), lanes(2)
    gates.close(stopped(waiting[0]), 7.0)
    for lane in waiting:
        gates.keep(stopped(lane))
    gates.leave(waiting[0])

    assert gates.open_due(7.0) == [waiting[1]]
