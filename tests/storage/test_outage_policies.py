"""What limited tasks do while Redis is away, without a worker: the slots that each policy gives out."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_global_rate.limits.bucket import Bucket, own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.redis_clock import RedisClock
from celery_global_rate.limits.reservation import Reservation
from celery_global_rate.limits.timing import HORIZON_S
from celery_global_rate.storage.outage_policies import Hold, Open, Share
from testbed.windows import excess

NAME = "tasks.add"
INTERVALS = st.builds(Limit, st.integers(1, 10_000_000), st.integers(0, 999_999), st.integers(1, 50))


@dataclass
class Members:
    most: int


class Still(RedisClock):
    """A worker's view of a Redis clock that moves as a test says."""

    us = 1_800_000_000_000_000

    def now_us(self, now: float) -> float:
        return self.us


class Worker:
    """A worker's share of limits, in virtual time."""

    def __init__(self, workers: int, chance: float = 0.0) -> None:
        self.clock = Still()
        self.share = Share(Members(workers), self.clock, lambda: chance)
        self.share.begin()
        self.slots_us: list[int] = []

    def reserve(self, limit: Limit, wanted: int = 10) -> Reservation:
        granted = self.share.reserve(own(NAME, limit), wanted)
        assert granted is not None
        self.slots_us += [granted.slot_us(index) for index in range(granted.count)]
        return granted


def test_without_a_count_nothing_starts() -> None:
    share = Share(Members(0), Still(), lambda: 0.0)

    assert share.reserve(own(NAME, Limit(1)), 1) is None
    assert "held until it has reported how many" in share.text


def test_with_hold_nothing_starts() -> None:
    assert Hold().reserve(own(NAME, Limit(1)), 1) is None  # type: ignore[func-returns-value]  # this is the promise


@given(INTERVALS, st.integers(1, 1_000_000))
def test_with_open_all_that_is_wanted_is_due_at_once(limit: Limit, wanted: int) -> None:
    """Also if Redis has never sent its time."""
    clock = RedisClock()
    policy = Open(clock)
    policy.begin()
    granted = policy.reserve(own(NAME, limit), wanted)

    assert (granted.count, granted.seq) == (wanted, 0)
    assert granted.has_spare
    assert clock.reached(granted.slot_us(wanted)) <= time.monotonic()


@pytest.mark.parametrize(("chance", "first_us"), [(0.0, 0), (0.5, 20_000), (0.999, 39_960)])
def test_the_first_slot_is_drawn_from_the_interval_of_a_share(chance: float, first_us: int) -> None:
    """Four workers at 100/s: 40 ms each."""
    worker = Worker(4, chance)
    granted = worker.reserve(Limit(10_000))

    assert granted.first_us - worker.clock.us == first_us
    assert (granted.interval_us, granted.seq, granted.waiting) == (40_000, 0, 1)


@given(INTERVALS, st.integers(1, 20), st.lists(st.integers(0, 3_000_000), min_size=1, max_size=30), st.floats(0, 0.999))
def test_a_share_is_never_faster_than_its_part(limit: Limit, workers: int, gaps_us: list[int], chance: float) -> None:
    """However it is asked: slots an N-th of the rate apart, none in the past, none beyond the horizon."""
    worker = Worker(workers, chance)
    for gap_us in gaps_us:
        worker.clock.us += gap_us
        granted = worker.reserve(limit)
        assert granted.first_us >= worker.clock.us
        assert granted.count == 0 or granted.end_us <= worker.clock.us + HORIZON_S * 1e6 + 1
    interval_us = workers * (limit.interval_us + limit.interval_ps / 1e6)
    gaps = [later - earlier for earlier, later in zip(worker.slots_us, worker.slots_us[1:])]

    assert all(gap >= interval_us - 1 for gap in gaps)


@given(st.builds(Limit, st.integers(100, 10_000_000), st.integers(0, 999_999)), st.integers(1, 8), st.data())
def test_all_that_are_cut_off_reach_the_rate_together_and_no_more(
    limit: Limit, workers: int, data: st.DataObject
) -> None:
    """N workers that ask all the time: N slots more than the rate in no window, and 2 N fewer in the whole time.

    Instants are whole microseconds here, so a window may look one shorter than it is for each worker.
    """
    instants_us: list[int] = []
    length_us = 20 * workers * limit.interval_us
    for _ in range(workers):
        worker = Worker(workers, data.draw(st.floats(0, 0.999)))
        end_us = worker.clock.us + length_us
        while worker.clock.us < end_us:
            worker.clock.us = max(worker.reserve(limit, 1000).slot_us(0), worker.clock.us + 1)
        instants_us += [instant - Still.us for instant in worker.slots_us if instant < end_us]
    interval_us = limit.interval_us + limit.interval_ps / 1e6

    assert excess(sorted(instants_us), interval_us, workers, slack_s=workers) <= 0
    assert len(instants_us) >= length_us / interval_us - 2 * workers


def test_what_is_given_back_comes_again() -> None:
    """Of three slots one is used, and the others go back."""
    worker = Worker(1)
    granted = worker.reserve(Limit(10_000), 3)
    granted.used = 1
    worker.share.give_back(own(NAME, Limit(10_000)), granted)

    assert worker.reserve(Limit(10_000), 1).first_us == granted.slot_us(1)


def test_a_lane_starts_at_the_latest_share_of_its_limits() -> None:
    """10/s of its own and 100/s with others, for two workers: 0.2 s apart, and others have 20 ms behind each slot."""
    worker = Worker(2)
    mine, shared = own(NAME, Limit(100_000)), (Bucket("api", "smooth", Limit(10_000)),)
    instants = []
    for _ in range(5):
        granted = worker.share.reserve((*mine, *shared), 3)
        assert granted is not None
        instants += [granted.slot_us(index) for index in range(granted.count)]
        others = worker.share.reserve(shared, 1)
        assert others is not None
        assert others.first_us == instants[-1] + 20_000
        worker.share.give_back(shared, others)
        worker.clock.us = instants[-1] + 200_000

    assert [later - earlier for earlier, later in zip(instants, instants[1:])] == [200_000] * 4


def test_buckets_have_shares_of_their_own() -> None:
    worker = Worker(1)
    worker.reserve(Limit(10_000), 3)

    other = worker.share.reserve(own("tasks.other", Limit(10_000)), 1)
    assert other is not None
    assert other.first_us == worker.clock.us
