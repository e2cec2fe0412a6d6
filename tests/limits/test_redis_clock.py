"""The worker's view of the Redis clock, with known clocks on both sides."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from celery_global_rate.limits.redis_clock import DRIFT, ROUNDING_US, RedisClock

EPOCH_US = 1_800_000_000_000_000
ROUNDING_S = 2 * ROUNDING_US / 1e6

LATENCIES = st.floats(0, 0.001) | st.floats(0, 0.3)
#: The pause before a call, and the time it takes each way.
CALLS = st.lists(st.tuples(st.floats(0, 0.2) | st.floats(0, 6), LATENCIES, LATENCIES), min_size=1, max_size=30)


class Wire:
    """A worker and its Redis: a monotonic clock, and a Redis clock that runs `drift` faster and is `offset` ahead."""

    def __init__(self, drift: float = 0.0, uptime: float = 1e5) -> None:
        self.clock = RedisClock()
        self.now, self.drift, self.step_s = uptime, drift, 0.0
        self._start = uptime

    def redis_us(self, monotonic: float) -> float:
        """What the clock of Redis says at a monotonic instant."""
        return EPOCH_US + ((monotonic - self._start) * (1 + self.drift) + self.step_s) * 1e6

    def call(self, pause: float = 0.0, there: float = 0.0, back: float = 0.0) -> None:
        sent = self.now + pause
        self.now = sent + there + back
        self.clock.observe(int(self.redis_us(sent + there)), sent, self.now)

    @property
    def late_s(self) -> float:
        """How long after an instant of the Redis clock the worker is sure that it has been reached."""
        redis_us = self.redis_us(self.now)
        return self.clock.reached(redis_us) - self.now


@given(CALLS, st.floats(1.0, 1e7))
def test_the_true_difference_lies_in_the_interval(calls: list[tuple[float, float, float]], uptime: float) -> None:
    wire = Wire(uptime=uptime)
    for call in calls:
        wire.call(*call)

        assert -ROUNDING_S <= wire.late_s <= wire.clock.uncertainty_s + ROUNDING_S


@given(CALLS, st.floats(-0.9 * DRIFT, 0.9 * DRIFT))
def test_it_still_does_when_the_clocks_drift_apart(calls: list[tuple[float, float, float]], drift: float) -> None:
    wire = Wire(drift)
    for call in calls:
        wire.call(*call)

        # In flight the clocks drift as well: by DRIFT of a second at the most.
        assert -ROUNDING_S - DRIFT <= wire.late_s <= wire.clock.uncertainty_s + ROUNDING_S + DRIFT


@given(CALLS)
@example([(0.0, 0.0, 0.0), (0.0, 0.0, 46e-6), (0.0, 0.0, 46e-6)])  # no time at all: only rounding is left
def test_the_uncertainty_is_the_shortest_round_trip_and_drift(calls: list[tuple[float, float, float]]) -> None:
    wire, bound = Wire(), inf
    for pause, there, back in calls:
        wire.call(pause, there, back)
        bound = min(bound + 2 * DRIFT * (pause + there + back), there + back)

        # No interval is empty for rounding alone; one that were would be taken for a step of the clock.
        assert wire.clock.uncertainty_s <= bound + ROUNDING_S


def test_before_the_first_call_nothing_is_known() -> None:
    clock = RedisClock()

    assert inf == clock.uncertainty_s
    assert inf == clock.reached(EPOCH_US)


def test_one_call_bounds_the_difference_by_its_round_trip() -> None:
    clock = RedisClock()
    clock.observe(EPOCH_US, 100.0, 100.25)

    assert clock.uncertainty_s == pytest.approx(0.25, abs=ROUNDING_S)
    assert clock.reached(EPOCH_US + 1_000_000) == pytest.approx(101.25, abs=ROUNDING_S)


def test_a_slow_answer_teaches_nothing_and_a_fast_one_narrows() -> None:
    wire = Wire()
    wire.call(0, 0.010, 0.010)
    wire.call(0, 0.200, 0.001)
    assert 0.0110 <= wire.clock.uncertainty_s <= 0.0112

    wire.call(0, 0.0001, 0.0001)
    assert wire.clock.uncertainty_s == pytest.approx(0.0002, abs=2e-6)


def test_two_one_sided_answers_narrow_to_less_than_a_round_trip() -> None:
    wire = Wire()
    wire.call(0, 0.1, 0)
    wire.call(0, 0, 0.1)

    assert wire.clock.uncertainty_s <= 4 * DRIFT * 0.1 + ROUNDING_S


@pytest.mark.parametrize("step_s", [-3600.0, -0.5, 0.5, 3600.0])
def test_a_step_of_a_clock_is_adopted_with_the_next_answer(step_s: float) -> None:
    wire = Wire()
    wire.call(0, 0.001, 0.001)
    wire.step_s = step_s
    wire.call(1.0, 0.002, 0.003)

    assert wire.clock.uncertainty_s == pytest.approx(0.005, abs=ROUNDING_S)
    assert -ROUNDING_S <= wire.late_s <= 0.005 + ROUNDING_S


def test_what_is_known_widens_by_the_drift_while_nothing_is_heard() -> None:
    wire = Wire()
    wire.call(0, 0.0005, 0.0005)
    wire.call(10, 0.5, 0.5)

    assert wire.clock.uncertainty_s == pytest.approx(0.001 + 2 * DRIFT * 11, abs=ROUNDING_S)
