"""The table of `global-rate show`, and what a worker says of held tasks."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from celery_global_rate import report
from celery_global_rate.bucket import Bucket
from celery_global_rate.clock import RedisClock
from celery_global_rate.limit import Limit
from celery_global_rate.overview import WIDTH, Row, table
from celery_global_rate.reservation import Reservation

NOW_US = 1_800_000_000_000_000
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=0x17F), min_size=1, max_size=150)
CELLS = st.tuples(NAMES, *[st.text("0123456789/s ", min_size=1, max_size=11)] * 7)


@given(
    st.lists(st.builds(Row, NAMES, st.just({}), CELLS, st.text(max_size=200).map(lambda text: " ".join(text.split()))))
)
def test_no_line_is_wider_than_a_terminal(rows: list[Row]) -> None:
    assert all(len(line) <= WIDTH for line in table(rows))


def test_a_long_name_keeps_both_ends() -> None:
    name = "proj.department.tasks." + "x" * 100 + ".send_one"
    line = table([Row(name, {}, (name, "1/s", "1/s", "declared", "0.0/s", "0", "0", "now"), "")])[1]

    assert line.startswith("proj.")
    assert ".send_one  1/s" in line


def test_held_tasks_are_expected_after_their_slots_and_the_shares_of_others() -> None:
    """Three in hand of 10/s, the next at once; then, with two workers that wait, each 0.2 s later."""
    clock = RedisClock()
    clock.observe(NOW_US, 100.0, 100.0)
    bucket = Bucket("t", Limit(100_000))
    bucket.reservations.append(Reservation(NOW_US, NOW_US, 0, 100_000, 0, 3, 1, 2))
    bucket.waiting = 2
    for number in range(30):
        bucket.hold(SimpleNamespace(id=str(number), held_since=0.0), 100.0)
    told = report.held(bucket, clock, 100.0)

    assert told["count"] == 30
    assert [task["expected_s"] for task in told["tasks"][:6]] == [0.0, 0.1, 0.2, 0.4, 0.6, 0.8]
    assert [task["id"] for task in told["tasks"]] == [str(number) for number in range(20)]


def test_held_tasks_of_a_paused_bucket_are_expected_at_its_end_or_never() -> None:
    clock = RedisClock()
    clock.observe(NOW_US, 100.0, 100.0)
    for floor_us, limit in ((NOW_US + 5_000_000, Limit(100_000)), (NOW_US + 5_000_000, None)):
        bucket = Bucket("t", limit)
        bucket.floor_us = floor_us
        bucket.hold(SimpleNamespace(id="1", held_since=0.0), 100.0)

        assert report.held(bucket, clock, 100.0)["tasks"][0]["expected_s"] == 5.0
