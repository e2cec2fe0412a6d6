"""When running tasks will end: what the last run times promise."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_global_rate.limits.timing import HORIZON_S
from celery_global_rate.scheduling.run_times import GAP_S, KNOWN_RUNS, MOST_RUNS, QUICK_S, RunTimes

RUN_TIMES = st.lists(st.floats(0, 10), min_size=KNOWN_RUNS, max_size=60)
AGES = st.lists(st.floats(0, 20), max_size=100)


def paced(*run_times_s: float) -> RunTimes:
    pace = RunTimes()
    for run_time_s in run_times_s:
        pace.ran(run_time_s, 0.0)
    return pace


def test_nothing_is_promised_before_ten_run_times() -> None:
    assert paced(*[0.001] * 9).ends([0.0] * 8, HORIZON_S) == (0.0, 0.0)
    assert not paced(*[0.001] * 9).are_quick()
    assert paced(*[0.001] * 10).ends([0.0] * 8, HORIZON_S)[0] > 0


@pytest.mark.parametrize(("age_s", "within_s", "least", "most"), [(0, 0.019, 0, 0), (0.012, 0.02, 0.97, 1.1)])
def test_equal_tasks_end_when_they_are_as_old_as_the_others_were(
    age_s: float, within_s: float, least: float, most: float
) -> None:
    """Tasks of 20 ms: none that begins now ends within 19 ms; one that has run for 12 ms does, within 20 ms, once.

    The one begun after it would end 8.5 + 20.5 ms from now. 40 run times promise 40 of 41.
    """
    expected, deviation = paced(*[0.02] * 40).ends([age_s], within_s)

    assert least <= expected <= most
    assert deviation <= 0.2


def test_a_task_that_has_outlived_all_others_promises_nothing() -> None:
    assert paced(*[0.005] * 40).ends([1.0], HORIZON_S) == (0.0, 0.0)


def test_only_those_that_ran_for_longer_count_for_a_task_that_runs() -> None:
    """5 ms or a second, half of them each: one that has run for 10 ms will not end soon, one that begins now may."""
    pace = paced(*[0.005, 1.0] * 20)

    assert pace.ends([0.01], 0.1)[0] == 0
    assert pace.ends([0.0], 0.02)[0] >= 0.4


@pytest.mark.parametrize("within_s", [0.01, 0.02, 0.1, 0.5])
def test_random_run_times_promise_their_mean_rate(within_s: float) -> None:
    """Exponential ones of 100 ms mean, whatever the ages: one end each 100 ms and process. 40 say it to 16 %."""
    chance = random.Random(1)
    figures = []
    for _ in range(50):
        pace = paced(*[chance.expovariate(10) for _ in range(40)])
        figures.append(pace.ends([chance.expovariate(10) for _ in range(8)], within_s)[0])
    expected = sum(figures) / len(figures)

    assert 0.8 <= expected / (8 * within_s / (0.1 + GAP_S)) <= 1.2


@given(RUN_TIMES, AGES, st.floats(0, 1))
def test_what_is_promised_is_bounded(run_times: list[float], ages: list[float], within_s: float) -> None:
    """One for each that runs, and what fits after it on average, at the most; a longer time promises more."""
    pace = paced(*run_times)
    known = run_times[-MOST_RUNS:]
    mean_s = sum(known) / len(known) + GAP_S
    expected, deviation = pace.ends(ages, within_s)

    assert 0 <= expected <= (len(ages) + 1) * (1 + within_s / mean_s) + 1e-6
    assert deviation >= 0
    assert pace.ends(ages, within_s + 0.01)[0] >= expected - len(ages) * 0.5 - 1e-6
    assert pace.mean_s == pytest.approx(mean_s)


def test_of_very_many_tasks_a_part_stands_for_all() -> None:
    """A thousand greenlets cost as much to look at as 64, and promise as much as a thousand."""
    pace = paced(*[0.02] * 40)
    all_of_them, of_one = pace.ends([0.012] * 1000, 0.02)[0], pace.ends([0.012], 0.02)[0]

    assert all_of_them == pytest.approx(1000 * of_one, rel=0.02)


def test_the_last_forty_count() -> None:
    """When tasks become slower, forty tasks later nothing is expected of what the quick ones promised."""
    pace = paced(*[0.005] * 40, *[0.3] * 39)
    still = pace.ends([0.0], 0.02)[0]
    pace.ran(0.3, 0.0)

    assert still > 0
    assert pace.ends([0.0], 0.02)[0] == 0


def test_only_quick_tasks_may_wait_on_deck() -> None:
    """Quick is up to a tenth of the horizon, each of the last ten runs."""
    quick, slow = HORIZON_S / 10, HORIZON_S / 10 + 0.001

    assert paced(*[quick] * 10).are_quick()
    assert not paced(*[quick] * 9, slow).are_quick()
    assert paced(slow, *[quick] * 10).are_quick()


def test_an_end_is_recent_for_as_long_as_a_quick_task_takes() -> None:
    pace = paced(0.001)

    assert pace.has_just_ended(QUICK_S)
    assert not pace.has_just_ended(QUICK_S + 0.001)
    assert not RunTimes().has_just_ended(0.0)


def test_tasks_that_take_no_time_promise_a_finite_number() -> None:
    assert 0 < paced(*[0.0] * 10).ends([0.0], HORIZON_S)[0] < 1000
