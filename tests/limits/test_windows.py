"""Windows of a calendar: days that differ in length, months, weeks, offsets, against a walk along local clocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from functools import partial
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celery_global_rate.limits.windows import Calendar

from ..conftest import Figures

US = 1_000_000
HOUR_S, DAY_S = 3600, 86400
LOS_ANGELES = "America/Los_Angeles"


def utc(*at: int) -> int:
    """An instant, epoch s."""
    return int(datetime(*at, tzinfo=timezone.utc).timestamp())  # type: ignore[arg-type, misc]  # mypy wants a year


def edges_s(calendar: Calendar, now_s: float) -> tuple[float, ...]:
    """The edges around an instant, epoch s."""
    return tuple(edge / US for edge in calendar.edges(int(now_s * US)))


# An oracle that asks what a clock shows and never computes an edge: it walks through the year in steps of a quarter of
# an hour, sees which period the local date is in, and finds the second at which the next one begins.


def period_of_days(count: int, local: date) -> int:
    """Counted from Monday, 0001-01-01."""
    return (local - date(1, 1, 1)).days // count


def period_of_months(count: int, local: date) -> int:
    return (12 * (local.year - 1) + local.month - 1) // count


def begins(zone: str, years: range, period: Callable[[date], int]) -> Iterator[int]:
    """The first second of each period after the first one, epoch s. A clock that is set back begins none again."""
    tz = ZoneInfo(zone)

    def shows(at: int) -> int:
        return period(datetime.fromtimestamp(at, tz).date())

    begin, step = utc(years[0], 1, 1), 900
    current = shows(begin)
    for at in range(begin, utc(years[-1] + 1, 1, 1), step):
        if shows(at) > current:
            low, high = at - step, at  # the next period has begun after low, and by high
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if shows(middle) <= current else (low, middle)
            yield high
            current = shows(at)


#: A zone, the years to look at, and what is special about them.
DAYS = [
    ("Europe/Berlin", range(2024, 2026), {23, 24, 25}),
    ("America/New_York", range(2026, 2027), {23, 24, 25}),
    (LOS_ANGELES, range(2099, 2101), {23, 24, 25}),
    ("Australia/Lord_Howe", range(2024, 2025), {23.5, 24, 24.5}),
    ("America/Sao_Paulo", range(2018, 2019), {23, 24, 25}),  # no midnight when the clock is set forward
    ("Asia/Beirut", range(2022, 2023), {23, 24, 25}),
    ("Africa/Cairo", range(2023, 2025), {23, 24, 25}),
    ("America/Havana", range(2024, 2025), {23, 24, 25}),  # midnight twice
    ("Atlantic/Azores", range(2024, 2025), {23, 24, 25}),
    ("America/St_Johns", range(2010, 2011), {23, 24, 25}),  # a minute after midnight the clock is set back to 23:01
    ("Pacific/Apia", range(2011, 2012), {23, 24, 25}),  # no December 30
    ("Asia/Kathmandu", range(2000, 2001), {24}),
    ("UTC", range(2000, 2001), {24}),
]


def check_all(calendar: Calendar, expected: list[int]) -> list[float]:
    """Compare the edges of windows with those of the oracle, at both ends of each window and within.

    Returns:
        The lengths of the windows in hours.
    """
    for begin, end, next_end in zip(expected, expected[1:], expected[2:]):
        for now_us in (begin * US, begin * US + 1, (begin + 1800) * US, (begin + end) * US // 2, end * US - 1):
            assert calendar.edges(now_us) == (begin * US, end * US, next_end * US), (calendar, now_us)
    return [(end - begin) / HOUR_S for begin, end in zip(expected, expected[1:])]


@pytest.mark.parametrize(("zone", "years", "hours"), DAYS)
def test_a_day_is_from_one_local_midnight_to_the_next(zone: str, years: range, hours: set[float]) -> None:
    """Also the days on which the clock is set: they are shorter or longer, and no other window is."""
    found = check_all(Calendar.parse("d", None, zone), list(begins(zone, years, partial(period_of_days, 1))))

    assert set(found) == hours
    assert len(found) >= 360 * len(years)


@pytest.mark.parametrize(
    ("zone", "years", "count"),
    [("Europe/Berlin", range(2023, 2026), 7), ("America/Havana", range(2024, 2026), 7), ("UTC", range(2000, 2003), 5)],
)
def test_several_days_are_counted_from_a_monday(zone: str, years: range, count: int) -> None:
    expected = list(begins(zone, years, partial(period_of_days, count)))
    check_all(Calendar.parse(f"{count}d", None, zone), expected)

    weekdays = {datetime.fromtimestamp(it, ZoneInfo(zone)).weekday() for it in expected}
    assert weekdays == ({0} if count == 7 else set(range(7)))


@pytest.mark.parametrize(
    ("zone", "years", "count", "days"),
    [
        (None, range(1999, 2005), 1, {28, 29, 30, 31}),
        ("UTC", range(2099, 2101), 1, {28, 30, 31}),
        ("Europe/Berlin", range(2023, 2026), 1, {28, 29, 30, 31}),
        ("America/New_York", range(2023, 2026), 3, {90, 91, 92}),
        ("Pacific/Apia", range(2011, 2012), 1, {28, 30, 31}),  # December has 30
        ("Asia/Beirut", range(2021, 2025), 12, {365, 366}),
    ],
)
def test_a_month_is_from_its_first_to_the_next(zone: str | None, years: range, count: int, days: set[int]) -> None:
    """Windows of three months are the quarters of a year, and twelve are a year. Days are rounded: an hour is lost."""
    calendar = Calendar.parse("month" if count == 1 else f"{count}month", None, zone)
    found = check_all(calendar, list(begins(zone or "UTC", years, partial(period_of_months, count))))

    assert {round(it / 24) for it in found} == days


@pytest.mark.parametrize(
    ("period", "length_s"),
    [
        *(("s", 1), ("10s", 10), ("15s", 15), ("7s", 7), ("m", 60), ("5m", 300), ("h", HOUR_S), ("2h", 2 * HOUR_S)),
        *(("5h", 5 * HOUR_S), ("d", DAY_S), ("7d", 7 * DAY_S), ("30d", 30 * DAY_S), ("24h", DAY_S)),
    ],
)
@pytest.mark.parametrize("now_s", [utc(2000, 1, 1), utc(2026, 11, 26, 20, 50, 7), utc(2038, 1, 19, 3, 14, 8)])
@pytest.mark.parametrize("offset_s", [0, 1, 30])
def test_a_period_of_a_fixed_length_is_counted_from_the_first_monday_of_the_calendar(
    period: str, length_s: int, now_s: int, offset_s: int
) -> None:
    """In whole seconds since 0001-01-01, by the arithmetic of dates and not of epochs."""
    if offset_s >= length_s:
        return
    begin, end, next_end = edges_s(Calendar.parse(period, offset_s or None), now_s)
    since = datetime.fromtimestamp(begin, timezone.utc) - datetime(1, 1, 1, tzinfo=timezone.utc)

    assert begin <= now_s < end
    assert (end - begin, next_end - end) == (length_s, length_s)
    assert since % timedelta(seconds=length_s) == timedelta(seconds=offset_s)


@pytest.mark.parametrize(
    ("period", "offset", "now", "begin"),
    [
        ("d", "9h", (2026, 11, 26, 8, 59, 59), (2026, 11, 25, 9)),
        ("d", "9h", (2026, 11, 26, 9), (2026, 11, 26, 9)),
        ("d", 9 * HOUR_S, (2026, 11, 26, 10), (2026, 11, 26, 9)),
        ("h", "30m", (2026, 11, 26, 10, 29), (2026, 11, 26, 9, 30)),
        ("7d", None, (2026, 11, 26), (2026, 11, 23)),  # a Thursday, and the Monday before
        ("7d", "6d", (2026, 11, 26), (2026, 11, 22)),  # weeks that begin on Sunday
        ("7d", "4d", (2026, 11, 26), (2026, 11, 20)),
        ("month", None, (2026, 11, 26), (2026, 11, 1)),
        ("month", "4d", (2026, 11, 4, 23, 59, 59), (2026, 10, 5)),  # bills are from the fifth to the fifth
        ("month", "4d", (2026, 11, 5), (2026, 11, 5)),
        ("month", "27d", (2026, 2, 27), (2026, 1, 28)),
        ("month", "27d", (2026, 2, 28), (2026, 2, 28)),
        ("3month", "1d", (2026, 11, 26), (2026, 10, 2)),
    ],
)
def test_an_offset_lets_windows_begin_later(
    period: str, offset: object, now: tuple[int, ...], begin: tuple[int, ...]
) -> None:
    calendar = Calendar.parse(period, offset)

    assert edges_s(calendar, utc(*now))[0] == utc(*begin)
    assert edges_s(calendar, utc(*begin) - 1e-6)[1] == utc(*begin)


@pytest.mark.parametrize(
    ("zone", "now", "begin", "end"),
    [
        (LOS_ANGELES, (2026, 11, 26, 7, 59), (2026, 11, 25, 8), (2026, 11, 26, 8)),
        (LOS_ANGELES, (2026, 3, 8, 12), (2026, 3, 8, 8), (2026, 3, 9, 7)),  # 23 hours
        (LOS_ANGELES, (2026, 11, 1, 12), (2026, 11, 1, 7), (2026, 11, 2, 8)),  # 25 hours
        ("Asia/Tokyo", (2026, 11, 26, 15), (2026, 11, 26, 15), (2026, 11, 27, 15)),
        ("America/Sao_Paulo", (2018, 11, 4, 12), (2018, 11, 4, 3), (2018, 11, 5, 2)),
        ("Pacific/Apia", (2011, 12, 30, 12), (2011, 12, 30, 10), (2011, 12, 31, 10)),
    ],
)
def test_days_as_people_know_them(
    zone: str, now: tuple[int, ...], begin: tuple[int, ...], end: tuple[int, ...]
) -> None:
    """Written by hand."""
    assert edges_s(Calendar.parse("d", None, zone), utc(*now))[:2] == (utc(*begin), utc(*end))


ZONES = sorted(available_timezones())
PERIODS = ["s", "10s", "7m", "h", "5h", "d", "2d", "7d", "30d", "month", "3month", "12month"]


@given(
    st.sampled_from(PERIODS),
    st.none() | st.integers(1, 40 * DAY_S) | st.sampled_from(ZONES),
    st.integers(utc(2000, 1, 1) * US, utc(2100, 1, 1) * US),
)
@settings(max_examples=500, deadline=None)
@example("d", "America/St_Johns", utc(2010, 11, 7, 3) * US)  # 23:30 for the second time, after the first midnight
@example("d", "Pacific/Apia", utc(2011, 12, 30, 9, 59) * US)
def test_edges_are_one_after_the_other(period: str, more: object, now_us: int) -> None:
    """In every window of every zone from 2000 to 2100: now is within, and the next window begins where it ends."""
    offset, zone = (more, None) if isinstance(more, int) else (None, more)
    try:
        calendar = Calendar.parse(period, offset, zone)
    except ValueError:
        assert more is not None  # the offset is too long, or the period no days
        return
    begin, end, next_end = calendar.edges(now_us)

    assert all(type(edge) is int for edge in (begin, end, next_end))
    assert begin <= now_us < end < next_end
    assert calendar.edges(begin) == calendar.edges(end - 1) == (begin, end, next_end)
    assert calendar.edges(end)[:2] == (end, next_end)
    assert calendar.edges(begin - 1)[1:] == (begin, end)


@pytest.mark.long
@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Beirut"]
)
def test_every_day_of_a_hundred_years(zone: str, figures: Figures) -> None:
    years = range(2000, 2100)
    found = check_all(Calendar.parse("d", None, zone), list(begins(zone, years, partial(period_of_days, 1))))
    figures(f"{zone}: {len(found)} days of {min(found):g} to {max(found):g} hours, as the oracle has them")

    assert len(found) > 36_500


@pytest.mark.parametrize(
    ("period", "offset", "zone", "name"),
    [
        ("d", None, None, "d"),
        ("1d", None, None, "d"),
        ("24h", None, None, "d"),
        ("10s", None, None, "10s"),
        ("60m", None, None, "h"),
        ("d", "9h", None, "d+9h"),
        ("d", 9 * HOUR_S, None, "d+9h"),
        ("d", None, LOS_ANGELES, f"d-{LOS_ANGELES}"),
        ("7d", None, "Europe/Berlin", "7d-Europe/Berlin"),
        ("month", None, None, "month"),
        ("1month", None, None, "month"),
        ("3month", None, None, "3month"),
        ("month", "4d", None, "month+4d"),
        ("d", None, "UTC", "d"),
        ("d", 0, None, "d"),
    ],
)
def test_a_name_tells_calendars_apart_and_is_equal_for_equal_ones(
    period: str, offset: object, zone: str | None, name: str
) -> None:
    """It is part of a key in Redis: workers that write the same windows differently share a bucket."""
    assert Calendar.parse(period, offset, zone).key == f"fixed-{name}"


@pytest.mark.parametrize(
    ("period", "offset", "zone", "named"),
    [
        ("w", None, None, "w"),
        ("", None, None, "''"),
        ("0d", None, None, "0d"),
        ("1.5h", None, None, "1.5h"),
        ("months", None, None, "months"),
        ("ms", None, None, "ms"),
        ("d", "24h", None, "24h"),
        ("d", "2d", None, "2d"),
        ("h", HOUR_S, None, "3600"),
        ("d", 1.5, None, "1.5"),
        ("13month", None, None, "13month"),
        ("367d", None, None, "367d"),
        ("month", "28d", None, "28d"),
        ("d", "soon", None, "soon"),
        ("d", -1, None, "-1"),
        ("d", True, None, "True"),
        ("d", "-9h", None, "-9h"),
        ("d", [], None, "[]"),
        ("d", None, "Mars/Olympus", "Mars/Olympus"),
        ("d", None, "PST8", "PST8"),
        ("d", None, "", "''"),
        ("d", None, 5, "5"),
        ("d", None, "../etc/passwd", "../etc/passwd"),
        ("d", None, "/etc/localtime", "/etc/localtime"),
        ("h", None, LOS_ANGELES, LOS_ANGELES),
        ("36h", None, LOS_ANGELES, LOS_ANGELES),
        ("d", "9h", LOS_ANGELES, "9h"),
    ],
)
def test_what_is_no_calendar_is_refused_by_its_value(period: str, offset: object, zone: object, named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)) as refusal:
        Calendar.parse(period, offset, zone)

    assert "use " in str(refusal.value) or "leave" in str(refusal.value)
    assert "\n" not in str(refusal.value)
