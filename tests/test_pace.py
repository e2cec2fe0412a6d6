"""How many slots the pool can use: what the last run times promise."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celery_global_rate.bucket import HORIZON_S
from celery_global_rate.pace import KNOWN_RUNS, QUICK_S, Pace

RUN_TIMES = st.lists(st.floats(0, 0.1), min_size=KNOWN_RUNS, max_size=40)


def paced(*run_times_s: float) -> Pace:
    pace = Pace()
    for run_time_s in run_times_s:
        pace.ran(run_time_s, 0.0)
    return pace


def test_nothing_is_promised_before_ten_run_times() -> None:
    for known in range(10):
        pace = paced(*[0.001] * known)

        assert pace.starts(8, 0.0, HORIZON_S) == 0
        assert not pace.are_quick()
    assert paced(*[0.001] * 10).starts(8, 0.0, HORIZON_S) > 0


def test_each_process_starts_one_after_the_other() -> None:
    """In 100 ms with tasks of 7.8 ms, 12 for each process: 12.8 is not rounded up, for one process or for all four."""
    pace = paced(*[0.0078] * 10)

    assert pace.starts(1, 0.0, 0.1) == 12
    assert pace.starts(4, 0.0, 0.1) == 48


@given(RUN_TIMES, st.integers(1, 64), st.just(0.0) | st.floats(0, 10), st.floats(0, 1))
def test_nothing_is_rounded_up(run_times: list[float], processes: int, oldest_s: float, within_s: float) -> None:
    """What is promised fits: that many runs, each as long as the longest that is known, end within the time."""
    starts = paced(*run_times).starts(processes, oldest_s, within_s)
    longest_s = max(*run_times[-10:], oldest_s)

    assert starts % processes == 0
    assert starts // processes * longest_s <= within_s * (1 + 1e-9)


def test_the_longest_of_the_last_ten_counts() -> None:
    """One long run holds the promise back until ten others have ended."""
    pace = paced(*[0.001] * 20, 0.05)
    held_back = pace.starts(1, 0.0, 0.1)
    for _ in range(9):
        pace.ran(0.001, 0.0)
    still = pace.starts(1, 0.0, 0.1)
    pace.ran(0.001, 0.0)

    assert held_back == still == 2
    assert pace.starts(1, 0.0, 0.1) >= 99


def test_the_oldest_running_task_counts() -> None:
    """Quick tasks until now, and one that has been running for 30 ms, 60 ms and 200 ms: 3, 1 and 0 in 100 ms."""
    pace = paced(*[0.001] * 10)

    assert [pace.starts(1, oldest_s, 0.1) for oldest_s in (0.03, 0.06, 0.2)] == [3, 1, 0]


def test_only_quick_tasks_may_wait_on_deck() -> None:
    """Quick is up to a tenth of the horizon, each of the last ten runs."""
    quick, slow = HORIZON_S / 10, HORIZON_S / 10 + 0.001

    assert paced(*[quick] * 10).are_quick()
    assert not paced(*[quick] * 9, slow).are_quick()


def test_an_end_is_recent_for_as_long_as_a_quick_task_takes() -> None:
    pace = paced(0.001)

    assert pace.has_just_ended(QUICK_S)
    assert not pace.has_just_ended(QUICK_S + 0.001)
    assert not Pace().has_just_ended(0.0)


def test_tasks_that_take_no_time_promise_a_finite_number() -> None:
    assert 0 < paced(*[0.0] * 10).starts(1, 0.0, HORIZON_S) < 1_000_000
