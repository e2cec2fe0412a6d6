"""Records and lengths of time, without a server."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_global_rate.limits import duration
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.override import Kept, Override, parse_rate, parse_rates, set_limits

NOW_US = 1_800_000_000_000_000
SECOND = 1_000_000
PER_S, PER_10_MS = Limit(SECOND), Limit(10_000)


def override(**content: object) -> Override:
    whole = {"what": "set", "when": str(NOW_US), **content}
    return Override.parse(f"7:abc:0:{json.dumps(whole)}")


@pytest.mark.parametrize(
    ("rate", "limit", "spelled"),
    [
        ("20/s", Limit(50_000), "20/s"),
        ("1000/d", Limit(86_400_000), "1000/d"),
        ("60/m", Limit(SECOND), "1/s"),
        ("5/30s", Limit(6 * SECOND), "10/m"),
        ("1000/2h", Limit(7_200_000), "500/h"),
        ("1/7s", Limit(7 * SECOND), "1/7s"),
        (5, Limit(200_000), "5/s"),
        ("none", None, "none"),
        ("None", None, "none"),
        (" NONE ", None, "none"),
        ("0", None, "none"),
        ("0/s", None, "none"),
        (0, None, "none"),
        ("", None, "none"),
        (None, None, "none"),
    ],
)
def test_what_an_operator_may_write(rate: object, limit: Limit | None, spelled: str) -> None:
    assert parse_rate(rate) == (limit, spelled)


@pytest.mark.parametrize("rate", ["abc", "-5/s", "nan/s", "inf/s", "10/x", "1/s/s", True, [], "1e999/s", "1/w"])
def test_an_invalid_rate_is_refused(rate: object) -> None:
    with pytest.raises(ValueError, match="use N/s, N/m, N/h, N/d or N/30s"):
        parse_rate(rate)


@pytest.mark.parametrize("rate", ["1000/d", "5/30s", "10/1s"])
def test_a_task_may_not_declare_another_period_than_celerys(rate: str) -> None:
    """A stock worker could not read it."""
    with pytest.raises(ValueError, match="use N/s, N/m or N/h"):
        Limit.parse(rate)


@pytest.mark.parametrize(
    ("rates", "bursts", "limits", "spelled"),
    [
        ("20/s", [None], (Limit(50_000),), "20/s"),
        ("20/s", [5], (Limit(50_000, 0, 5),), "20/s, burst 5"),
        ("20/s,2000/2h", [None, 100], (Limit(50_000), Limit(3_600_000, 0, 100)), "20/s and 1000/h, burst 100"),
        (" 1000/h , 20/s ", [100, None], (Limit(3_600_000, 0, 100), Limit(50_000)), "1000/h, burst 100 and 20/s"),
        (5, [None], (Limit(200_000),), "5/s"),
        *((none, [None, 100], (), "none") for none in ("none", "0", "", None, 0)),
        ("none", [None], (), "none"),
    ],
)
def test_rates_are_for_the_declared_limits_in_their_order(
    rates: object, bursts: list[int | None], limits: tuple[Limit, ...], spelled: str
) -> None:
    """Each one keeps its burst; no limit at all is one word."""
    assert parse_rates(rates, list(map(Kept, bursts))) == (limits, spelled)


@pytest.mark.parametrize("rates", ["20/s", 20, "20/s,2000/h,5/m", "20/s,2000/h,", "20/s,none", "none,20/s"])
def test_another_number_of_rates_than_declared_is_refused(rates: object) -> None:
    with pytest.raises(ValueError, match="2 rates are declared: write as many, or none for no limit") as refusal:
        parse_rates(rates, [Kept(), Kept(100)])

    assert repr(rates) in str(refusal.value)


@pytest.mark.parametrize(
    ("rates", "bursts"), [("20/s,2000/h", [None]), ("20/s;2000/h", [None, 1]), ("20/s,x", [None, 1])]
)
def test_one_of_several_rates_that_cannot_be_read_is_refused(rates: str, bursts: list[int | None]) -> None:
    with pytest.raises(ValueError, match="cannot be read: use N/s, N/m, N/h, N/d or N/30s"):
        parse_rates(rates, list(map(Kept, bursts)))


LOS_ANGELES = "America/Los_Angeles"
DAYS_THERE, DAYS_FROM_9 = Limit.in_windows("10000/d", None, LOS_ANGELES), Limit.in_windows("500/d", "9h")
MONTHS, TENS = Limit.in_windows("1000000000/month"), Limit.in_windows("100/10s")
ANY_DAY, ANY_TENS = Limit.in_any("1000000000/d"), Limit.in_any("100/10s")
QUOTAS = [DAYS_THERE, DAYS_FROM_9, MONTHS, TENS, ANY_DAY, ANY_TENS]


@pytest.mark.parametrize(
    ("rates", "declared", "limits", "spelled"),
    [
        ("8000/d", [DAYS_THERE], [("8000/d", None, LOS_ANGELES)], f"8000/d fixed, {LOS_ANGELES}"),
        ("8000/24h", [DAYS_THERE], [("8000/d", None, LOS_ANGELES)], f"8000/d fixed, {LOS_ANGELES}"),
        ("7/d", [DAYS_FROM_9], [("7/d", "9h", None)], "7/d fixed, offset 9h"),
        (" 1/month ,50/10s", [MONTHS, TENS], [("1/month",), ("50/10s",)], "1/month fixed and 50/10s fixed"),
        *((none, [DAYS_THERE], [], "none") for none in ("none", "0", "", None, 0)),
        *((none, [TENS, DAYS_THERE], [], "none") for none in ("none", "0", "", None, 0)),
    ],
)
def test_a_rate_for_a_fixed_window_changes_the_number_alone(
    rates: object, declared: list[Limit], limits: list[tuple[str, ...]], spelled: str
) -> None:
    """Window, offset and time zone stay as they are declared."""
    expected = tuple(Limit.in_windows(*it) for it in limits)

    assert parse_rates(rates, [Kept.of(limit) for limit in declared]) == (expected, spelled)


def test_a_rate_for_a_sliding_window_changes_the_number_alone() -> None:
    assert parse_rates("50/10s,7/24h", [Kept.of(ANY_TENS), Kept.of(ANY_DAY)]) == (
        (Limit.in_any("50/10s"), Limit.in_any("7/d")),
        "50/10s sliding and 7/d sliding",
    )


def test_a_smooth_rate_beside_a_fixed_one_keeps_its_burst() -> None:
    declared = [Limit(50_000, 0, 5), DAYS_THERE]

    limits, spelled = parse_rates("10/s,8000/d", [Kept.of(limit) for limit in declared])

    assert limits == (Limit(100_000, 0, 5), Limit.in_windows("8000/d", None, LOS_ANGELES))
    assert spelled == f"10/s, burst 5 and 8000/d fixed, {LOS_ANGELES}"


@pytest.mark.parametrize(
    ("rate", "declared", "remedy"),
    [
        ("8000/h", DAYS_THERE, "use N/d"),
        ("8000/7d", DAYS_THERE, "use N/d"),
        ("8000/month", DAYS_FROM_9, "use N/d"),
        ("300000/30d", MONTHS, "use N/month"),
        ("10/s", TENS, "use N/10s"),
        ("10/s", ANY_TENS, "use N/10s"),
        ("300000/30d", ANY_DAY, "use N/d"),
    ],
)
def test_another_period_than_that_of_the_declared_window_is_refused(rate: str, declared: Limit, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"^rate '{rate}' has another period .*: {remedy}, or change"):
        parse_rates(rate, [Kept.of(declared)])


@pytest.mark.parametrize("rate", ["8000", 8000, "8000/", "1.5/d", "0/d", "-1/d", "1000000001/d", "x/d", True, []])
def test_a_number_of_starts_that_no_fixed_window_can_have_is_refused(rate: object) -> None:
    with pytest.raises(ValueError, match="use ") as refusal:
        parse_rates(rate, [Kept.of(DAYS_THERE)])

    assert repr(rate) in str(refusal.value)


def as_workers_read_it(limits: tuple[Limit, ...], declared: tuple[Limit, ...]) -> Override:
    """An order, by way of the text in Redis."""
    change = set_limits(limits, "as set", declared)
    return override(limit={**change["limit"], "when": str(NOW_US)})


@pytest.mark.parametrize(
    "limits",
    [
        *((limit,) for limit in QUOTAS),
        (PER_S, DAYS_THERE),
        (DAYS_THERE, PER_S, MONTHS, TENS),
        (PER_S,),
        (PER_S, PER_10_MS),
    ],
)
def test_an_order_has_what_a_worker_needs_to_know_its_limits(limits: tuple[Limit, ...]) -> None:
    found = as_workers_read_it(limits, limits).limit_override

    assert found is not None
    assert found.limits == limits
    assert found.fits(limits)


def test_an_order_without_fixed_windows_is_written_as_before() -> None:
    """Workers that know no calendars read it."""
    assert set_limits((PER_S, PER_10_MS), "as set", ())["limit"].keys() == {"rate", "declared", "us", "ps", "burst"}
    assert set_limits((PER_S, TENS), "as set", ())["limit"]["window"] == ",10:0:0:"


def test_an_order_for_other_windows_than_are_declared_has_no_effect() -> None:
    """A deploy has changed the window: N of the old one would be another quota in the new one."""
    for declared in [*QUOTAS, PER_S]:
        for ordered in [*QUOTAS, PER_S]:
            found = as_workers_read_it((PER_10_MS, ordered), (PER_10_MS, declared))
            misfit = found.limit_override.misfit((PER_S, declared)) if found.limit_override else None
            in_force = found.limits_at(NOW_US, (PER_S, declared))

            assert misfit == ("" if declared == ordered else "another window")
            assert in_force == ((PER_10_MS, ordered) if declared == ordered else (PER_S, declared))


def test_an_order_fits_whatever_the_number_in_a_window() -> None:
    fewer = Limit.in_windows("1/d", None, LOS_ANGELES)
    found = as_workers_read_it((fewer,), (DAYS_THERE,))

    assert found.limits_at(NOW_US, (DAYS_THERE,)) == (fewer,)


@pytest.mark.parametrize("declared", [(), (PER_S,), (DAYS_THERE,), (PER_S, DAYS_THERE)])
def test_an_order_of_another_number_of_limits_does_not_fit_and_no_limit_always_does(
    declared: tuple[Limit, ...],
) -> None:
    three = as_workers_read_it((PER_S, PER_10_MS, TENS), declared).limit_override
    none = as_workers_read_it((), declared).limit_override

    assert three is not None
    assert three.misfit(declared) == "another number of limits"
    assert none is not None
    assert none.fits(declared)


@pytest.mark.parametrize(
    "window",
    [
        *("10", "10:0:0", "0:0:0:", "10:1:0:", "-1:0:0:", "x:0:0:", "10:0:-1:", "86400:0:0:Mars Olympus", "10:0:0:,"),
        *("86400:0:0:" + 65 * "a", "99999999999999:0:0:", "10:0:0::", 5, [], None, "nan:0:0:"),
        *("sliding:", "sliding:0", "sliding:-5", "sliding:5:0", "slide:5", "sliding:99999999999999"),
    ],
)
def test_a_damaged_window_is_a_value_error(window: object) -> None:
    """Redis gives out no slots then, until another order is written."""
    limit = {"rate": "x", "us": "1", "ps": "0", "burst": "1", "when": "1", "window": window}
    with pytest.raises(ValueError, match=r".+"):
        override(limit=limit)


def test_an_order_is_in_force_until_its_end() -> None:
    limit = {"rate": "1/s", "us": str(SECOND), "ps": "0", "burst": "1", "when": str(NOW_US), "until": str(NOW_US + 5)}
    found = override(limit=limit)

    assert found.limits_at(NOW_US + 4, (PER_10_MS,)) == (PER_S,)
    assert found.limits_at(NOW_US + 5, (PER_10_MS,)) == (PER_10_MS,)
    assert found.limits_at(float("-inf"), (PER_10_MS,)) == (PER_S,)  # a worker that does not know the clock yet


def test_no_limit_is_an_order_and_declared_is_none() -> None:
    none = override(limit={"rate": "none", "when": "1"})
    declared = override(limit={"rate": "declared", "when": "1"})

    assert none.limits_at(NOW_US, (PER_S,)) == ()
    assert none.limit_override_at(NOW_US) is not None
    assert declared.limits_at(NOW_US, (PER_S,)) == (PER_S,)
    assert declared.limit_override_at(NOW_US) is None
    assert override().limits_at(NOW_US, (PER_S,)) == (PER_S,)


def test_a_reason_fits_into_a_line() -> None:
    origin = override(reason=" they\ncalled\x1b[2J\x00  at\tnight ", by="me").origin

    assert (origin.by, origin.reason) == ("me", "they called [2J at night")


def test_a_pause_lasts_until_its_end() -> None:
    ends = override(pause={"when": "1", "until": str(NOW_US + 5)})
    endless = override(pause={"when": "1"})

    assert ends.pause_at(NOW_US + 4) is ends.pause
    assert ends.pause_at(NOW_US + 5) is None
    assert endless.pause_at(NOW_US + 10**15) is endless.pause
    assert override().pause_at(NOW_US) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rubbish",
        "1:a:0:",
        "1:a:0:{",
        "1:a:0:[]",
        "1:a:0:{}",
        'x:a:0:{"what": "set", "when": "1"}',
        '1:a:0:{"what": "set", "when": "soon"}',
        '1:a:0:{"what": "set", "when": "1", "limit": 5}',
        '1:a:0:{"what": "set", "when": "1", "limit": {"when": "1"}}',
        '1:a:0:{"what": "set", "when": "1", "limit": {"when": "1", "rate": "x", "us": "1"}}',
        '1:a:0:{"what": "set", "when": "1", "pause": "now"}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_record_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Override.parse(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["what", "when", "limit", "pause", "rate", "us", "ps", "burst", "window", "until", "by", "reason"]
)


@given(st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON, max_size=5), max_size=6))
@settings(max_examples=500)
def test_whatever_is_in_a_record_it_is_read_or_a_value_error(content: dict[str, object]) -> None:
    with suppress(ValueError):
        found = Override.parse(f"1:a:0:{json.dumps(content)}")
        found.limits_at(NOW_US, (PER_S,))
        found.pause_at(NOW_US)


def test_a_record_that_is_nested_too_deeply_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        Override.parse('1:a:0:{"reason":' + "[" * 19_000)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), (" 5s ", 5)],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert duration.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0", "-5s", "5 s", "1.5h", "5w", "h", "99999999d", "5s!"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid duration"):
        duration.parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((-1, "0 s"), (0.4, "0 s"), (1.6, "2 s"), (119.4, "119 s"), (120, "2 m")),
        *((899.9, "15 m"), (5400, "90 m"), (7199.9, "2 h"), (172799.9, "2 d")),
    ],
)
def test_a_length_of_time_has_one_unit(seconds: float, text: str) -> None:
    assert duration.format_duration(seconds) == text
