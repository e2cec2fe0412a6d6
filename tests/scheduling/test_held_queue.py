"""The order of what is held."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_global_rate.scheduling.held_queue import HeldQueue


def test_the_lowest_rank_comes_first_and_arrival_decides_within_it() -> None:
    queue = HeldQueue(lambda request: request % 10)
    for request in (13, 11, 23, 30, 21):
        queue.append(request)

    assert list(queue) == [30, 11, 21, 13, 23]
    assert [queue.popleft() for _ in range(5)] == [30, 11, 21, 13, 23]
    with pytest.raises(IndexError):
        queue.popleft()


def test_what_comes_back_is_before_the_others_of_its_rank() -> None:
    queue = HeldQueue(lambda request: request % 10)
    for request in (11, 12, 21):
        queue.append(request)
    queue.put_first([31, 41, 32])

    assert list(queue) == [31, 41, 11, 21, 32, 12]
    assert queue.first == 31


@given(st.lists(st.tuples(st.sampled_from(["append", "put_first", "popleft", "remove"]), st.integers(0, 40))))
def test_it_is_a_sorted_list(steps: list[tuple[str, int]]) -> None:
    """Against a list that is sorted by rank after each step: sorting is stable, so arrival decides."""
    queue, model = HeldQueue(lambda request: request[0] % 3), []
    for serial, (verb, number) in enumerate(steps):
        request = (number, serial)
        if verb == "append":
            queue.append(request)
            model.append(request)
        elif verb == "put_first":
            queue.put_first([request])
            model.insert(0, request)
        elif verb == "popleft" and model:
            assert queue.popleft() == model.pop(0)
        elif verb == "remove":
            gone = [it for it in model if it[0] == number]
            queue.remove(gone)
            model = [it for it in model if it not in gone]
        model.sort(key=lambda request: request[0] % 3)

        assert list(queue) == model
        assert len(queue) == len(model)
        assert not model or queue.first == model[0]
