"""Any history of a bucket: the scripts answer as the oracle does, and keep the promise."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from fractions import Fraction
from math import ceil, floor, inf

from hypothesis import given, settings
from hypothesis import strategies as st

from celery_global_rate.limits.limit import Limit

from ..limits.oracle import interval
from .replay import HORIZON_US, NOW, PATIENCE_US, Bucket, Step, random_history, replay, slots

SECOND, DAY = 1_000_000, 86_400_000_000

RATES = ["7/s", "100/s", "100000/s", "100/m", "1/m", "1/h", 1 / 3, 1 / 86400]
BURSTS = st.integers(1, 5) | st.integers(1, 3000)
PS = st.just(0) | st.integers(0, 999_999)


def parsed(rate: str, burst: int) -> Limit:
    limit = Limit.parse(rate, burst)
    assert limit is not None
    return limit


LIMITS = st.one_of(
    st.builds(parsed, st.sampled_from(RATES), BURSTS),
    st.builds(Limit, st.integers(1, 20) | st.integers(1, 300_000) | st.integers(1, 2 * DAY), PS, BURSTS),
    st.builds(Limit, st.just(0), st.integers(1, 999_999), BURSTS),
)
WORKERS = st.sampled_from(["one", "two", "three"])
WANTED = st.integers(1, 12) | st.integers(1, 2000)
GAPS = st.sampled_from([0, 1]) | st.integers(0, 2 * HORIZON_US) | st.integers(0, 30 * SECOND) | st.integers(0, 2 * DAY)
STEPS_BACK = st.integers(-HORIZON_US, 0) | st.integers(-DAY, 0)
EDGES = st.none() | st.sampled_from([-1, 0, 1])


def histories(limits: list[Limit], gaps: st.SearchStrategy[int], *rare: str) -> st.SearchStrategy[list[Step]]:
    """Histories of a bucket that is declared with these limits."""
    verbs = st.sampled_from(["reserve", "reserve", "reserve", "give back", *rare])
    picks = st.integers(0, 50)
    steps = st.builds(Step, st.sampled_from(limits), gaps, EDGES, verbs, WANTED, WORKERS, picks)
    return st.lists(steps, min_size=4, max_size=40)


@given(
    st.lists(LIMITS, min_size=1, max_size=3).flatmap(
        lambda limits: histories(limits, GAPS | STEPS_BACK, "lose", "script flush")
    ),
    st.integers(NOW - 10**15, NOW + 5 * 10**15),
    st.just(HORIZON_US) | st.integers(1, SECOND),
    st.integers(PATIENCE_US, 2 * PATIENCE_US),
)
@settings(max_examples=150)
def test_the_script_answers_as_the_oracle(
    bucket: Bucket, history: list[Step], start_us: int, horizon_us: int, patience_us: int
) -> None:
    bucket.lose()
    bucket.horizon_us, bucket.patience_us = horizon_us, patience_us

    assert len(list(replay(bucket, history, start_us))) <= len(history)


def test_the_script_answers_as_the_oracle_over_long_histories(bucket: Bucket) -> None:
    for seed in range(6):
        bucket.lose()
        for _ in replay(bucket, random_history(seed, 200)):
            pass


WIDTHS = st.fractions(Fraction(1, 9), 3, max_denominator=1000)


@given(
    LIMITS.flatmap(lambda limit: st.tuples(st.just(limit), histories([limit], GAPS))),
    st.lists(st.tuples(st.integers(0, 10_000), WIDTHS, st.integers(1, 50)), min_size=20, max_size=20),
)
@settings(max_examples=70)
def test_no_window_holds_more_slots_than_promised(
    bucket: Bucket, case: tuple[Limit, list[Step]], windows: list[tuple[int, Fraction, int]]
) -> None:
    """A slot counts from its instant, or from the call that gave it out where that is later; returned ones never.

    A closed window from slot i to slot j holds j - i + 1, at most b + floor(w/T), so (j - i + 1 - b) T <= w, and the
    earliness i T - start of no slot is more than (b - 1) T over the least before it. That checks all pairs at once.
    """
    limit, history = case
    step = interval(limit)
    bucket.lose()
    starts: list[Fraction] = []
    for reservation, _, count in replay(bucket, history):
        if count < 0:
            del starts[count:]
        starts += [max(start, Fraction(reservation.now_us)) for start in slots(reservation)] if count > 0 else []

    assert sorted(starts) == starts

    least: float | Fraction = inf
    for index, start in enumerate(starts):
        earliness = index * step - start
        least = min(least, earliness)
        assert earliness - least <= (limit.burst - 1) * step

    for pick, share, times in windows if starts else []:
        first, width = pick % len(starts), share * times * step
        held = bisect_left(starts, starts[first] + width) - first
        assert held <= limit.burst - 1 + ceil(width / step)
        closed = bisect_right(starts, starts[first] + width) - first
        assert closed <= limit.burst + floor(width / step)
