"""What a worker makes of the answer for a lane of several limits, and what it does not take for one."""

from __future__ import annotations

from typing import Any

import pytest

from celery_global_rate.limits.lane_reservation import SLOTS_PER_CALL, LaneReservation

NOW = 1_800_000_000_000_000
#: Two slots of a lane of two limits; the next one is set by the second.
ANSWER: list[Any] = [NOW, 2, NOW, 3, 2, NOW + 900, 0, ""]
ANSWER += [NOW, NOW + 25_000, NOW, NOW - 5_000, NOW + 100, NOW + 20_000, NOW + 100, NOW]


def test_an_answer_is_read() -> None:
    given = LaneReservation.read(ANSWER, 2)

    assert (given.count, given.left, given.seq, given.waiting, given.binds) == (2, 2, NOW, 3, 1)
    assert [given.slot_us(index) for index in range(3)] == [NOW, NOW + 100, NOW + 900]
    assert given.slots == [(NOW, NOW - 5_000), (NOW + 100, NOW)]
    assert [given.due_by(us) for us in (NOW - 1, NOW, NOW + 99, NOW + 100)] == [0, 1, 1, 2]
    assert given.has_spare


def test_a_used_slot_is_no_longer_due_and_the_next_one_has_an_end_of_its_own() -> None:
    given = LaneReservation.read(ANSWER, 2)
    given.used = 1

    assert (given.due_us, given.due_by(NOW + 99), given.due_by(NOW + 100)) == (NOW + 100, 0, 1)
    assert given.usable_s(1) == pytest.approx(0.0199 - 0.005)
    assert given.usable_s(0.01) == given.usable_s(1)


def test_a_refusal_and_an_override_are_read() -> None:
    refused = LaneReservation.read([NOW, 0, 0, 1, 1, NOW + 900, 0, b""], 2)
    told = LaneReservation.read([NOW, 0, 0, 1, 2, NOW, 2, b"7:a:0:{}"], 2)

    assert (refused.count, refused.slot_us(0), refused.has_spare) == (0, NOW + 900, False)
    assert (told.which, told.override) == (1, b"7:a:0:{}")


def changed(place: int, value: object) -> list[Any]:
    return [*ANSWER[:place], value, *ANSWER[place + 1 :]]


@pytest.mark.parametrize(
    "answer",
    [
        [],
        ANSWER[:7],
        ANSWER[:-1],
        [*ANSWER, NOW],
        changed(0, None),
        changed(0, str(NOW)),
        changed(0, 2**53 + 1),
        changed(1, 1),
        changed(1, 3),
        changed(1, True),
        changed(3, -1),
        changed(4, 0),
        changed(4, 3),
        changed(6, 1),
        changed(6, 3),
        [*ANSWER[:6], 3, "7:a:0:{}", *ANSWER[8:]],
        changed(7, None),
        changed(7, 5),
        changed(7, "7:a:0:{}"),
        changed(8, NOW + 101),
        changed(9, NOW - 1),
        changed(10, NOW + 1),
        [*ANSWER[:1], SLOTS_PER_CALL + 1, *ANSWER[2:8], *ANSWER[8:12] * (SLOTS_PER_CALL + 1)],
    ],
)
def test_anything_else_is_no_answer(answer: list[Any]) -> None:
    with pytest.raises(ValueError, match="unexpected reply to reserve_lane"):
        LaneReservation.read(answer, 2)


def test_an_answer_for_another_number_of_limits_is_none() -> None:
    for limits in (1, 3, 4):
        with pytest.raises(ValueError, match="unexpected reply"):
            LaneReservation.read(ANSWER, limits)
