"""When a crontab's refills come: as Celery's own crontab says, and on the days when clocks change."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab

from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.refills import Refills
from celery_global_rate.limits.windows import read

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE_US = 60 * 10**6


def between(refills: Refills, begin: datetime, end: datetime) -> list[datetime]:
    """The refills from one instant to another, by the next one again and again."""
    found: list[datetime] = []
    now_us = int(begin.timestamp()) * 10**6 - 1
    while (now_us := refills.edges(now_us, refills.amount).next_us[0]) < end.timestamp() * 10**6:
        found.append(datetime.fromtimestamp(now_us // 10**6, timezone.utc))
    return found


def of_beat(schedule: Any, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    """When a beat that is never late would send a task."""
    app = Celery(set_as_current=False)
    app.conf.timezone = zone
    schedule.app, last = app, begin
    found: list[datetime] = []
    while True:
        schedule.nowfun = lambda last=last: last
        _, delta, _ = schedule.remaining_delta(last)
        last = (last.astimezone(ZoneInfo(zone)) + delta).astimezone(timezone.utc)
        if last >= end:
            return found
        found.append(last)


CRONTABS: list[dict[str, Any]] = [
    {},
    {"minute": 0},
    {"minute": "*/15", "hour": "9-17", "day_of_week": "mon-fri"},
    {"minute": [5, 50], "hour": 23},
    {"minute": 30, "hour": "*/6"},
    {"minute": 0, "hour": 0, "day_of_month": "1,15"},
    {"minute": 0, "hour": 12, "day_of_week": "sun", "month_of_year": "1-6"},
]


@pytest.mark.parametrize("fields", CRONTABS, ids=str)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_refills_come_when_celery_would_send_a_task(fields: dict[str, Any], zone: str) -> None:
    """In three weeks without a change of the clocks, or a year where there are few."""
    begin = datetime(2026, 1, 5, 23, 30, tzinfo=timezone.utc)
    end = begin + timedelta(days=21 if "day_of_month" not in fields and "month_of_year" not in fields else 80)
    if not fields:
        end = begin + timedelta(days=1)
    refills = Refills.of(crontab(**fields), 1, "" if zone == "UTC" else zone)

    assert between(refills, begin + timedelta(seconds=1), end) == of_beat(crontab(**fields), zone, begin, end)


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 11, 1), 24)])
def test_an_hourly_refill_comes_each_hour_on_days_when_clocks_change(day: tuple[int, int, int], hours: int) -> None:
    begin = datetime(*day, tzinfo=BERLIN)
    end = datetime(*day, tzinfo=BERLIN) + timedelta(days=1)
    found = between(Refills.of(crontab(minute=0), 1, "Europe/Berlin"), begin, end)

    assert len(found) == hours
    assert {later - earlier for earlier, later in zip(found, found[1:])} == {timedelta(hours=1)}


def test_a_daily_refill_comes_once_a_day_whatever_clocks_do() -> None:
    """At half past two: on one day that comes twice, on another never, and the refill an hour later."""
    refills = Refills.of(crontab(minute=30, hour=2), 1, "Europe/Berlin")
    found = between(refills, datetime(2026, 1, 1, tzinfo=BERLIN), datetime(2027, 1, 1, tzinfo=BERLIN))

    assert len(found) == 365
    assert {it.astimezone(BERLIN).strftime("%H:%M") for it in found} == {"02:30", "03:30"}
    assert datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc) in found


@pytest.mark.parametrize("fields", CRONTABS, ids=str)
def test_the_last_ones_are_those_that_were_the_next_ones(fields: dict[str, Any]) -> None:
    """At random instants, also on an edge, and around changes of the clocks."""
    refills = Refills.of(crontab(**fields), 10, "Europe/Berlin")
    for now_us in (1_774_746_000_000_000, 1_774_746_000_000_001, 1_792_890_000_000_000, 1_800_000_000_000_000):
        edges = refills.edges(now_us, 25)
        assert len(edges.past) == 4, "three fill an empty bucket, and one more"
        assert edges.past[-1] <= now_us < edges.next_us[0] < edges.next_us[1] < edges.full_us
        for earlier, later in zip(edges.past, (*edges.past[1:], *edges.next_us)):
            assert refills.edges(earlier, 10).next_us[0] == later
        assert max(later - earlier for earlier, later in zip(edges.past, edges.past[1:])) <= refills.longest_s * 10**6


@pytest.mark.parametrize(
    ("fields", "zone", "longest_min"),
    [
        ({}, "Europe/Berlin", 1),
        ({"minute": 0}, "Europe/Berlin", 60),
        ({"minute": "0,10"}, "Asia/Kolkata", 50),
        ({"minute": 0}, "Australia/Lord_Howe", 120),
        ({"minute": 0, "hour": "*/6"}, "Europe/Berlin", 7 * 60),
        ({"minute": 0, "hour": "*/6"}, "UTC", 6 * 60),
        ({"minute": 0, "day_of_week": "mon-fri"}, "Europe/Berlin", 2 * 24 * 60 + 2 * 60),
    ],
    ids=str,
)
def test_how_long_it_is_between_two_at_the_most(fields: dict[str, Any], zone: str, longest_min: int) -> None:
    """It is what a worker goes by while Redis is away. Lord Howe changes its clocks by half an hour."""
    refills = Refills.of(crontab(**fields), 1, "" if zone == "UTC" else zone)
    edges = refills.edges(1_830_000_000_000_000, 20_000 if len(fields) < 2 else 2_000).past

    assert refills.longest_s == longest_min * 60
    assert max(later - earlier for earlier, later in zip(edges, edges[1:])) <= longest_min * MINUTE_US


def test_refills_are_looked_up_once_for_the_time_between_two() -> None:
    """A worker asks each minute or more often, and some years may be between a hundred of them."""
    refills = Refills.of(crontab(minute=0, hour=0, day_of_month=1), 1, "Europe/Berlin")
    first = refills.edges(1_774_746_000_000_000, 100)
    begin_us, end_us = first.past[-1], first.next_us[0]

    assert all(refills.edges(us, 100) is first for us in range(begin_us, end_us, 10**10))
    assert refills.edges(end_us - 1, 100) is first
    assert refills.edges(end_us, 100) is not first


@pytest.mark.parametrize("fields", CRONTABS, ids=str)
def test_a_text_reads_back(fields: dict[str, Any]) -> None:
    refills = Refills.of(crontab(**fields), 7, "Europe/Berlin")

    assert read(refills.text) == refills
    assert "," not in refills.text


@pytest.mark.parametrize(
    "text",
    [
        "crontab:0 * * * *:Europe/Berlin:0",
        "crontab:0 * * *::1",
        "crontab:60 * * * *::1",
        "crontab:0 * * * *:Nowhere:1",
        "crontab:a * * * *::1",
        "crontab",
    ],
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read(text)


def test_a_crontab_that_hardly_ever_comes_is_refused() -> None:
    with pytest.raises(ValueError, match="less often than every eight years"):
        Refills.of(crontab(minute=0, hour=0, day_of_month=29, month_of_year=2, day_of_week=1), 1)


def test_an_operator_sets_the_amount() -> None:
    refills = Refills.of(crontab(minute=0), 50, "Europe/Berlin")
    limit = Limit.refilled(crontab(minute=0), 50, 100, "Europe/Berlin")

    assert str(limit) == "50/refill at 0 * * * * Europe/Berlin, at most 100"
    assert str(Limit.of_amount("30/refill", refills, 100)) == "30/refill at 0 * * * * Europe/Berlin, at most 100"
    for rate in ("30/s", "0/refill", "101/refill", 30):
        with pytest.raises(ValueError, match="use"):
            Limit.of_amount(rate, refills, 100)
