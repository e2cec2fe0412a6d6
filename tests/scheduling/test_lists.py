"""The lists by which a turn finds its lanes: instants, orders, totals, and the pace of writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.scheduling.agenda import FEWEST, STALE, Agenda
from celery_global_rate.scheduling.lane import Lane
from celery_global_rate.scheduling.ordered import Ordered
from celery_global_rate.scheduling.pace import PAUSE_S, SAVED, Pace
from celery_global_rate.scheduling.totals import Share, Totals

INSTANTS = st.one_of(st.integers(0, 30).map(float), st.just(float("inf")))


@given(st.lists(st.one_of(st.tuples(st.integers(0, 5), INSTANTS), st.integers(0, 30).map(float)), max_size=300))
def test_an_agenda_is_a_table_of_instants(steps: list[tuple[int, float] | float]) -> None:
    """Against a dictionary that is searched each time; and what no longer counts does not pile up."""
    agenda: Agenda[int] = Agenda()
    model: dict[int, float] = {}
    for step in steps:
        if isinstance(step, tuple):
            item, at = step
            agenda.set(item, at)
            model[item] = at
            if at == float("inf"):
                del model[item]
        else:
            due = sorted(item for item, at in model.items() if at <= step)
            assert sorted(agenda.due(step)) == due
            for item in due:
                del model[item]
        assert agenda.next_at == min(model.values(), default=float("inf"))
        assert len(agenda._heap) <= STALE * 6 + FEWEST + 1


def test_an_agenda_gives_the_earliest_first() -> None:
    agenda: Agenda[str] = Agenda()
    for item, at in (("b", 2.0), ("c", 3.0), ("a", 1.0), ("later", 5.0)):
        agenda.set(item, at)
    agenda.set("later", 4.0)
    agenda.drop("c")

    assert agenda.due(3.0) == ["a", "b"]
    assert agenda.next_at == 4.0


@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 5))), max_size=100))
def test_ordered_buckets_are_a_sorted_list(steps: list[tuple[int, int | None]]) -> None:
    """Against a list that is sorted by number after each step; one that stays at its number keeps its place."""
    lanes = [Lane(str(index), own(str(index), Limit.parse("1/s"))) for index in range(6)]
    ordered = Ordered()
    model: list[tuple[int, int]] = []
    for index, number in steps:
        if number is None:
            ordered.discard(lanes[index])
        else:
            ordered.put(lanes[index], number)
        before = next((entry for entry in model if entry[1] == index), None)
        if before is None or before[0] != number:
            model = [entry for entry in model if entry[1] != index]
            if number is not None:
                model = sorted([*model, (number, index)], key=lambda entry: entry[0])
        assert [int(lane.name) for lane in ordered] == [index for _, index in model]
        assert ordered.first(2) == list(ordered)[:2]
        assert len(ordered) == len(model)


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 9), min_size=5, max_size=5)), max_size=50))
def test_totals_are_sums(steps: list[tuple[int, list[int]]]) -> None:
    """Against the sums over all shares; an empty lane is dropped."""
    lanes = [Lane(str(index), ()) for index in range(4)]
    totals, model = Totals(), dict.fromkeys(range(4), Share(0, 0, 0, 0, 0))
    for index, numbers in steps:
        model[index] = Share(*numbers)
        if any(numbers):
            totals.put(lanes[index], model[index])
        else:
            totals.drop(lanes[index])
        sums = tuple(map(sum, zip(*model.values())))
        assert (totals.held, totals.covered, totals.committed, totals.waiting, totals.near) == sums


def test_a_pace_saves_a_few_writes_and_no_more() -> None:
    """Asked every millisecond for 2 s after a rest: those that were saved, the one that is due, and one a pause."""
    pace, now, writes = Pace(), 100.0, 0
    for _ in range(2000):
        now += 0.001
        if now >= pace.at:
            pace.wrote(now)
            writes += 1

    assert SAVED + 2 / PAUSE_S - 1 <= writes <= SAVED + 2 / PAUSE_S + 2
