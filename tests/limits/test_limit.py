"""Rates as tasks declare them."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from celery_global_rate.limits.limit import AS_BUCKET, LONGEST_FILL_US, Limit

from .oracle import interval

SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("1/s", Limit(SECOND)),
        ("100/m", Limit(600_000)),
        ("7/s", Limit(142_857, 142_858)),
        ("3/h", Limit(HOUR // 3)),
        ("0.5/s", Limit(2 * SECOND)),
        ("0.1/m", Limit(10 * MINUTE)),
        ("100000/s", Limit(10)),
        ("1e5/s", Limit(10)),
        ("3000000/s", Limit(0, 333_334)),
        ("10", Limit(100_000)),
        ("10/", Limit(100_000)),
        (" 10/m", Limit(6 * SECOND)),
        (10, Limit(100_000)),
        (0.1, Limit(10 * SECOND)),
        (1 / 3, Limit(3 * SECOND, 1)),
        (Fraction(1, 4), Limit(4 * SECOND)),
    ],
)
def test_a_rate_is_an_interval(rate: Any, expected: Limit) -> None:
    assert expected == Limit.parse(rate)


@pytest.mark.parametrize("rate", [None, "", 0, 0.0, "0", "0/s", "0/m", "0.0/h", False, "-0/s"])
def test_nothing_and_zero_are_no_limit(rate: Any) -> None:
    assert Limit.parse(rate) is None


@pytest.mark.parametrize(
    "rate",
    [
        *("abc", "ten/m", "/m", "/", " ", "none", "10/x", "10/S", "10/d", "10/min", "10/s/s", "10 / m"),
        *("1,5/s", "0x10/s"),
        *("nan/s", "inf/s", "-inf", "1e999/s", float("nan"), float("inf"), 10**400),
        *("-5/s", -5, -0.1),
        *(True, [], {}, b"10/s", object(), 1j, Decimal(10)),
        *("1e-9/s", "1e-300/s", 5e-324, "0.00001/h"),
    ],
)
def test_an_invalid_rate_is_refused_by_name(rate: Any) -> None:
    with pytest.raises(ValueError, match="N/s, N/m or N/h") as refusal:
        Limit.parse(rate)

    assert repr(rate)[:80] in str(refusal.value)


@pytest.mark.parametrize(("burst", "expected"), [(None, 1), (1, 1), (20, 20), (10**6, 10**6)])
def test_a_burst_is_a_number_of_slots_and_one_where_none_is_given(burst: int | None, expected: int) -> None:
    assert Limit(600_000, 0, expected) == Limit.parse("100/m", burst)


@pytest.mark.parametrize("burst", [0, -1, 1.0, 2.5, 1_000_001, True, False, "5", [], float("inf")])
@pytest.mark.parametrize("rate", ["100/m", None])
def test_an_invalid_burst_is_refused_by_name(rate: str | None, burst: Any) -> None:
    with pytest.raises(ValueError, match="whole number from 1 to 1000000") as refusal:
        Limit.parse(rate, burst)

    assert repr(burst) in str(refusal.value)


def test_a_bucket_that_fills_in_ten_years_is_accepted_and_a_slower_one_is_not() -> None:
    longest = LONGEST_FILL_US // HOUR

    assert Limit(HOUR, 0, longest) == Limit.parse("1/h", longest)
    with pytest.raises(ValueError, match="ten years"):
        Limit.parse("1/h", longest + 1)


@given(st.decimals("0.001", "1000000", places=6), st.sampled_from([("s", 1), ("m", 60), ("h", 3600)]))
@example(Decimal("0.3"), ("s", 1))
def test_a_limit_is_never_faster_than_asked_and_slower_by_less_than_a_picosecond(
    count: Decimal, period: tuple[str, int]
) -> None:
    limit = Limit.parse(f"{count}/{period[0]}")
    exact = period[1] * SECOND / Fraction(count)

    assert limit is not None
    assert 0 <= limit.interval_ps < 1_000_000
    assert 0 <= interval(limit) - exact < Fraction(1, 1_000_000)


@given(st.floats(1e-4, 1e9), st.sampled_from([int, float]))
def test_a_number_is_starts_per_second_with_the_digits_that_were_written(count: float, kind: type) -> None:
    limit = Limit.parse(kind(count))

    if kind(count):
        assert limit is not None
        assert 0 <= interval(limit) - SECOND / Fraction(str(kind(count))) < Fraction(1, 1_000_000)


@given(st.integers(1, 100_000), st.sampled_from([1, 60, 3600]))
def test_the_long_run_rate_is_right_to_a_part_in_ten_thousand(count: int, seconds: int) -> None:
    limit = Limit.parse(f"{count}/{ {1: 's', 60: 'm', 3600: 'h'}[seconds] }")

    assert limit is not None
    assert 1 - 1e-4 <= limit.per_second * seconds / count <= 1 + 1e-12


@pytest.mark.parametrize(
    ("rate", "burst", "expected"),
    [
        ("100/m", 1, "100/m"),
        ("7/s", 1, "7/s"),
        ("1/h", 1, "1/h"),
        ("0.5/s", 1, "30/m"),
        ("60/m", 1, "1/s"),
        ("90/h", 1, "90/h"),
        ("2.5/s", 1, "150/m"),
        ("0.25/h", 1, "6/d"),
        ("100000/s", 1, "100000/s"),
        ("10/s", 20, "10/s, burst 20"),
    ],
)
def test_a_limit_reads_as_a_rate_in_whole_numbers(rate: str, burst: int, expected: str) -> None:
    assert expected == str(Limit.parse(rate, burst))


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        *(("5/30s", "10/m"), ("1000/2h", "500/h"), ("10000/d", "10000/d"), ("1/60h", "0.4/d"), ("0.7/h", "16.8/d")),
        *(("1/7s", "1/7s"), ("3/7s", "3/7s"), ("7/13m", "7/13m"), ("11/17h", "11/17h"), ("1/90d", "1/90d")),
        *(("123.456/s", "123.456/s"), ("1/86401s", "1/86401s"), ("14/26m", "7/13m")),
    ],
)
def test_a_period_reads_as_the_shortest_text_that_is_exact(rate: str, expected: str) -> None:
    assert str(Limit.parse(rate, None, AS_BUCKET)) == expected


@given(st.integers(1, 10_000), st.integers(1, 1000), st.sampled_from("smhd"))
def test_what_a_limit_of_any_period_reads_as_is_the_same_limit(count: int, number: int, unit: str) -> None:
    limit = Limit.parse(f"{count}/{number}{unit}", None, AS_BUCKET)

    assert limit == Limit.parse(str(limit), None, AS_BUCKET)


@given(st.integers(1, 100_000), st.sampled_from("smh"))
def test_what_a_limit_reads_as_is_the_same_limit(count: int, period: str) -> None:
    limit = Limit.parse(f"{count}/{period}")

    assert limit == Limit.parse(str(limit))


@pytest.mark.parametrize(
    ("rate", "grace_s"), [("1000/s", 0.025), ("4/s", 0.025), ("2/s", 0.05), ("6/m", 1.0), ("1/h", 1.0)]
)
def test_the_grace_is_a_tenth_of_the_interval_within_bounds(rate: str, grace_s: float) -> None:
    limit = Limit.parse(rate)

    assert limit is not None
    assert grace_s == pytest.approx(limit.grace_s)
