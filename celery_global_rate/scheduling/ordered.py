"""Lanes in an order of their own, of which mostly the first ones are looked at."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import count

from .lane import Lane


class Ordered:
    """Lanes by a number each, the lowest first, and by arrival where numbers are equal."""

    def __init__(self) -> None:
        self._keys: dict[Lane, tuple[float, int]] = {}
        self._sorted: list[tuple[float, int, Lane]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._keys

    def __iter__(self) -> Iterator[Lane]:
        for _, _, lane in self._sorted:
            yield lane

    def first(self, most: int) -> list[Lane]:
        """The first ones."""
        return [lane for _, _, lane in self._sorted[:most]]

    def put(self, lane: Lane, number: float) -> None:
        """Take a lane in, or move it to another number."""
        key = self._keys.get(lane)
        if key is None or key[0] != number:
            self.discard(lane)
            key = self._keys[lane] = (number, next(self._order))
            insort(self._sorted, (*key, lane))

    def discard(self, lane: Lane) -> None:
        """Take a lane out, if it is in."""
        if key := self._keys.pop(lane, None):
            del self._sorted[bisect_left(self._sorted, key)]

    def clear(self) -> None:
        """Take all of them out."""
        self._keys.clear()
        self._sorted.clear()
