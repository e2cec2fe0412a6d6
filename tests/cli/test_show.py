"""The table of `global-rate show`, and what a worker says of held tasks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_global_rate.cli.show import COLUMNS, SHOWN, WIDTH, Holding, Look, Row, effective_rate, table
from celery_global_rate.declared_limits import NOT_LIMITED
from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.override import LimitOverride, Origin, Pause
from celery_global_rate.limits.redis_clock import RedisClock
from celery_global_rate.limits.reservation import Reservation
from celery_global_rate.scheduling.lane import Lane
from celery_global_rate.storage.blocking_store import State
from celery_global_rate.worker import status as report

NOW_US = 1_800_000_000_000_000
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=0x17F), min_size=1, max_size=150)
CELLS = st.tuples(NAMES, *[st.text("0123456789/s ", min_size=1, max_size=11)] * (len(SHOWN) - 1))


@given(st.lists(st.builds(Row, st.just({}), CELLS, st.text(max_size=200).map(lambda text: " ".join(text.split())))))
def test_no_line_is_wider_than_a_terminal(rows: list[Row]) -> None:
    assert all(len(line) <= WIDTH for line in table(rows))


ANN = Origin(NOW_US - 3_600_000_000, "ann", "global-rate set", "they called")
STATE = State(NOW_US, 5, 2)
DECLARED = Look("t", (Limit(60_000_000),), None, None, None, [STATE], [STATE], 1.0, NOW_US, False, "")
#: Slots of up to 30 s ago.
LOG = [(NOW_US - 30_000_000, 9), (NOW_US - 8_000_000, 1), (NOW_US - 1_000_000, 4)]
SET = LimitOverride((Limit(200_000),), "5/s", None, "1/m", "declared", ANN)


@pytest.mark.parametrize(
    ("look", "cells", "note"),
    [
        (DECLARED, ("t", "1/m", "1/m", "declared", "1.0/m", "?", "2", "in 60 s"), ""),
        (
            replace(DECLARED, limit_override=SET, held=Holding(7, Counter({"slow": 2}))),
            ("t", "1/m", "5/s", "override", "0.0/s", "7", "2", "now"),
            "60 m ago by ann: they called; queue slow is put aside by 2 workers: global_rate_max_held",
        ),
        (
            replace(DECLARED, declared=(Limit.in_windows("5/10s"),), states=[State(None, 9, 2, {NOW_US: 3})]),
            ("t", "5/10s fixed", "5/10s fixed", "declared", "4.0/s", "?", "2", "now"),
            "3 of 5 used of this window, which ends in 10 s",
        ),
        (
            replace(DECLARED, declared=(Limit.in_windows("5/10s"),), states=[State(None, 9, 2, {NOW_US: 5})]),
            ("t", "5/10s fixed", "5/10s fixed", "declared", "4.0/s", "?", "2", "in 10 s"),
            "5 of 5 used of this window, which ends in 10 s",
        ),
        (
            replace(DECLARED, declared=(Limit.in_any("5/10s"),), states=[State(None, 9, 2, log=LOG)]),
            ("t", "5/10s sliding", "5/10s sliding", "declared", "4.0/s", "?", "2", "in 2 s"),
            "5 of 5 used in the last 10s",
        ),
        (
            replace(DECLARED, declared=(Limit.in_any("6/10s"),), states=[State(None, 9, 2, log=LOG)]),
            ("t", "6/10s sliding", "6/10s sliding", "declared", "4.0/s", "?", "2", "now"),
            "5 of 6 used in the last 10s",
        ),
        (
            replace(DECLARED, pause=Pause(None, ANN)),
            ("t", "1/m", "paused", "declared", "0.0/s", "?", "2", "after resume"),
            "paused 60 m ago by ann: they called",
        ),
        (
            replace(DECLARED, pause=Pause(NOW_US + 90_000_000, ANN)),
            ("t", "1/m", "paused", "declared", "0.0/s", "?", "2", "in 90 s"),
            "paused 60 m ago by ann, for another 90 s: they called",
        ),
        (
            replace(DECLARED, pause=Pause(None, ANN), is_unlimited=True),
            ("t", "1/m", "none", "declared", "0.0/s", "?", "2", "after resume"),
            NOT_LIMITED,
        ),
        (
            replace(DECLARED, declared=(Limit(100_000),), states=[State(NOW_US, 30, 2)], cost="tokens"),
            ("t", "10/s", "10/s", "declared", "25.0/s", "?", "2", "now"),
            "cost tokens: RATE counts units",
        ),
        (
            replace(DECLARED, states=[State(None, 9, 2, off_us=NOW_US + 5_000_000), State(NOW_US, 9, 0)]),
            ("t", "1/m", "backs off", "declared", "4.0/s", "?", "2", "in 5 s"),
            "backs off for another 5 s: an API asked to",
        ),
        (
            replace(DECLARED, states=[State(None, 9, 2, off_us=NOW_US + 95_000_000)], pause=Pause(NOW_US + 5, ANN)),
            ("t", "1/m", "paused", "declared", "4.0/s", "?", "2", "in 95 s"),
            "paused 60 m ago by ann, for another 0 s: they called; backs off for another 95 s: an API asked to",
        ),
        (
            replace(DECLARED, states=[State(None, 5, 2, off_us=NOW_US + 1)], is_unlimited=True),
            ("t", "1/m", "none", "declared", "0.0/s", "?", "2", "now"),
            NOT_LIMITED,
        ),
        (replace(DECLARED, problem="bad"), ("t", "1/m", "1/m", "declared", "1.0/m", "?", "2", "in 60 s"), "bad"),
    ],
)
def test_a_row_has_a_cell_for_each_column(look: Look, cells: tuple[str, ...], note: str) -> None:
    row = Row.of(look)

    assert (row.cells, row.note) == (cells, note)
    assert list(row.facts) == [column.key for column in COLUMNS]


def test_a_long_name_keeps_both_ends() -> None:
    name = "proj.department.tasks." + "x" * 100 + ".send_one"
    line = table([Row({}, (name, "1/s", "1/s", "declared", "0.0/s", "0", "0", "now"), "")])[1]

    assert line.startswith("proj.")
    assert ".send_one  1/s" in line


def test_held_tasks_are_expected_after_their_slots_and_the_shares_of_others() -> None:
    """Three in hand of 10/s, the next at once; then, with two workers that wait, each 0.2 s later."""
    clock = RedisClock()
    clock.observe(NOW_US, 100.0, 100.0)
    bucket = Lane("t", own("t", Limit(100_000)))
    bucket.reservations.append(Reservation(NOW_US, NOW_US, 0, 100_000, 0, 3, 1, 2))
    bucket.waiting = 2
    for number in range(30):
        bucket.hold(SimpleNamespace(id=str(number), held_since=0.0), 100.0)
    shown = report.held([bucket], clock, 100.0)

    assert shown["count"] == 30
    assert [task["expected_s"] for task in shown["tasks"][:6]] == [0.0, 0.1, 0.2, 0.4, 0.6, 0.8]
    assert [task["id"] for task in shown["tasks"]] == [str(number) for number in range(20)]


def test_held_tasks_that_cost_more_are_expected_later() -> None:
    """One of 2 units is in hand. Then two workers pay for 1, 50, 1 and 3 units each, at 10/s."""
    clock = RedisClock()
    clock.observe(NOW_US, 100.0, 100.0)
    costs = [2, 1, 50, 1, 3]
    lane = Lane("t", own("t", Limit(100_000)), cost_of=lambda request: (costs[int(request.id)],))
    for number in range(5):
        lane.hold(SimpleNamespace(id=str(number), held_since=0.0), 100.0)
    lane.waiting, lane.next_us = 2, NOW_US
    without = [task["expected_s"] for task in report.held([lane], clock, 100.0)["tasks"]]
    lane.reservations.append(Reservation(NOW_US, NOW_US, 0, 100_000, 0, 1, 1, 2))
    shown = report.held([lane], clock, 100.0)

    assert without == pytest.approx([0.0, 0.2, 10.2, 10.4, 11.0])
    assert [task["expected_s"] for task in shown["tasks"]] == pytest.approx([0.0, 0.2, 10.2, 10.4, 11.0])


def test_held_tasks_of_a_paused_bucket_are_expected_at_its_end_or_never() -> None:
    clock = RedisClock()
    clock.observe(NOW_US, 100.0, 100.0)
    for floor_us, limit in ((NOW_US + 5_000_000, Limit(100_000)), (NOW_US + 5_000_000, None)):
        bucket = Lane("t", own("t", limit))
        bucket.floor_us = floor_us
        bucket.hold(SimpleNamespace(id="1", held_since=0.0), 100.0)

        assert report.held([bucket], clock, 100.0)["tasks"][0]["expected_s"] == 5.0


def rate(limit: str, before: tuple[float, int], after: tuple[float, int], waiting: int = 1) -> float:
    """The rate between two looks a second apart: when the last slot was, in seconds, and how many were given."""
    earlier, later = (State(round(last_s * 1e6), given, waiting) for last_s, given in (before, after))
    return effective_rate(Limit.parse(limit), earlier, later, 1.0)


def test_a_rate_is_counted_from_slot_to_slot() -> None:
    """100/m: one slot in this second or two, 0.6 s apart."""
    assert rate("100/m", (100.0, 50), (100.6, 51)) == pytest.approx(100 / 60)
    assert rate("100/m", (100.0, 50), (101.2, 52)) == pytest.approx(100 / 60)
    assert rate("10/s", (100.0, 50), (101.0, 60)) == pytest.approx(10)
    assert rate("10/s", (100.0, 50), (101.8, 59)) == pytest.approx(5)  # half of the slots are used


def test_between_two_slots_of_a_slow_limit_it_is_the_limit_while_somebody_waits() -> None:
    assert rate("1/m", (100.0, 5), (100.0, 5)) == pytest.approx(1 / 60)
    assert rate("1/m", (100.0, 5), (160.0, 6)) == pytest.approx(1 / 60)
    assert rate("1/m", (100.0, 5), (100.0, 5), waiting=0) == 0
    assert rate("10/s", (100.0, 5), (100.0, 5)) == 0


def test_after_a_pause_it_is_counted_for_the_second() -> None:
    """And in one of a burst the slots lie before it."""
    assert rate("10/s", (40.0, 5), (101.0, 8)) == 3
    assert rate("10/s", (100.0, 5), (100.0, 0)) == 0
