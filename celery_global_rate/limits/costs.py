"""What slots cost: how many units of each limit of their lane, where that is not one of each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

#: The most units of one start.
LARGEST_COST = 1_000_000_000

#: Of one slot: units of each limit of its lane, in their order; 0 where it passes one by.
Cost = tuple[int, ...]


@dataclass(frozen=True)
class Costs:
    """Of the slots that a lane asks for.

    Attributes:
        of_each: one after the other, as the requests are held.
        after_us: none of them may be before the last slot in hand, epoch us; 0 if there is none.
    """

    of_each: tuple[Cost, ...]
    after_us: int = 0


def spelled(costs: tuple[Cost, ...]) -> str:
    """As the scripts for lanes read them: runs of equal ones, `3x1,500 2x1,0`."""
    return " ".join(f"{len(list(run))}x{','.join(map(str, cost))}" for cost, run in groupby(costs))
