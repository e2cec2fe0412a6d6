"""When each lane is to be looked at again: a turn costs what is due in it, however many lanes wait."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import count
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

#: So many entries that no longer count may be left for each that does, before they are cleared away.
STALE = 4
FEWEST = 64


class Agenda(Generic[Item]):
    """One instant for each item, and the items whose instant has come."""

    def __init__(self) -> None:
        self._at: dict[Item, float] = {}
        #: With what was set before: an entry counts if it has the instant of its item.
        self._heap: list[tuple[float, int, Item]] = []
        self._order = count()

    @property
    def next_at(self) -> float:
        """The earliest instant, or infinity."""
        heap = self._heap
        while heap and self._at.get(heap[0][2]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else float("inf")

    def set(self, item: Item, at: float) -> None:
        """Let an item be due at an instant, in place of the one it had; at infinity it never is."""
        if at == float("inf"):
            self.drop(item)
        elif self._at.get(item) != at:
            self._at[item] = at
            heapq.heappush(self._heap, (at, next(self._order), item))
            if len(self._heap) > STALE * len(self._at) + FEWEST:
                self._heap = [(at, next(self._order), item) for item, at in self._at.items()]
                heapq.heapify(self._heap)

    def drop(self, item: Item) -> None:
        """Let an item be due no more."""
        self._at.pop(item, None)

    def clear(self) -> None:
        """Drop all of them."""
        self._at.clear()
        self._heap.clear()

    def due(self, now: float) -> list[Item]:
        """Take out the items that are due, the earliest first."""
        due = []
        while self.next_at <= now:
            item = heapq.heappop(self._heap)[2]
            del self._at[item]
            due.append(item)
        return due
