"""What Redis answers for a lane of several limits: its slots, and those of them that are still in hand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .duration import US_PER_S
from .limit import HAND_OVER_S
from .redis_clock import LAST_US
from .reservation import SlotsInHand

#: The most that reserve_lane.lua gives out at once.
SLOTS_PER_CALL = 100
#: The fields before the slots.
HEAD = 8


@dataclass
class LaneReservation(SlotsInHand):
    """Slots at which each limit of a lane has one, used from the front.

    Attributes:
        again_us: the slot after these, epoch us; those that wait are at the limit that sets it.
        starts_us: from when on each slot may be used, epoch us.
        untils_us: and until when.
        slots: for each of them the slot of each limit, epoch us.
    """

    now_us: int
    count: int
    seq: int
    waiting: int
    binds: int
    again_us: int
    which: int
    override: str | bytes
    starts_us: list[int]
    untils_us: list[int]
    slots: list[tuple[int, ...]]
    used: int = 0

    @classmethod
    def read(cls, answer: Sequence[Any], limits: int) -> LaneReservation:
        """Read the answer of `reserve_lane`.

        Args:
            answer: what Redis has replied.
            limits: how many the lane has.

        Raises:
            ValueError: something else has answered.
        """
        numbers, override = [*answer[: HEAD - 1], *answer[HEAD:]], answer[HEAD - 1] if len(answer) >= HEAD else None
        is_whole = all(type(number) is int and 0 <= number <= LAST_US for number in numbers)
        if not is_whole or not isinstance(override, (str, bytes)):
            raise ValueError("unexpected reply to reserve_lane.lua")
        now_us, count, seq, waiting, binds, again_us, which = numbers[: HEAD - 1]
        rows = [numbers[at : at + 2 + limits] for at in range(HEAD - 1, len(numbers), 2 + limits)]
        starts_us, untils_us = [row[0] for row in rows], [row[1] for row in rows if len(row) == 2 + limits]
        is_meant = (
            len(rows) == len(untils_us) == count <= SLOTS_PER_CALL
            and 1 <= binds <= limits
            and which <= limits
            and bool(which) == bool(override)
            and starts_us == sorted(starts_us)
            and all(max(row[2:]) <= row[0] <= row[1] for row in rows)
        )
        if not is_meant:
            raise ValueError("unexpected reply to reserve_lane.lua")
        slots = [tuple(row[2:]) for row in rows]
        head = now_us, count, seq, waiting, binds - 1, again_us, max(0, which - 1)
        return cls(*head, override, starts_us, untils_us, slots)

    def slot_us(self, index: int) -> int:
        return self.starts_us[index] if index < self.count else self.again_us

    def due_by(self, redis_us: float) -> int:
        return bisect_right(self.starts_us, redis_us, self.used) - self.used

    def usable_s(self, most_s: float) -> float:
        return (self.untils_us[self.used] - self.due_us) / US_PER_S - HAND_OVER_S
