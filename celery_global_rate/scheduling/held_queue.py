"""What a lane holds, in the order in which it starts: by rank, and by arrival within a rank."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any


def same_rank(request: Any) -> int:
    """For a broker without priorities."""
    return 0


class HeldQueue:
    """A queue with few ranks.

    Args:
        rank: of a request; the lowest comes first.
    """

    def __init__(self, rank: Callable[[Any], int] = same_rank) -> None:
        self._rank = rank
        self._queues: dict[int, deque[Any]] = {}
        self._ranks: list[int] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self._queues[rank] for rank in self._ranks)

    @property
    def first(self) -> Any:
        """The one that starts next.

        Raises:
            IndexError: nothing is held.
        """
        return self._queues[self._ranks[0]][0]

    def append(self, request: Any) -> None:
        """Take a request in, as the last of its rank."""
        self._queue_of(request).append(request)
        self._count += 1

    def put_first(self, requests: Iterable[Any]) -> None:
        """Take requests in before all others of their rank, in this order."""
        for request in reversed([*requests]):
            self._queue_of(request).appendleft(request)
            self._count += 1

    def popleft(self) -> Any:
        """Take the first one out.

        Raises:
            IndexError: nothing is held.
        """
        queue = self._queues[self._ranks[0]]
        request = queue.popleft()
        self._count -= 1
        if not queue:
            del self._queues[self._ranks.pop(0)]
        return request

    def remove(self, requests: Iterable[Any]) -> None:
        """Take these out, wherever they are."""
        gone = {id(request) for request in requests}
        for rank in [*self._ranks]:
            kept = deque(request for request in self._queues[rank] if id(request) not in gone)
            self._count += len(kept) - len(self._queues[rank])
            self._queues[rank] = kept
            if not kept:
                del self._queues[rank]
                self._ranks.remove(rank)

    def clear(self) -> None:
        """Take all of them out."""
        self._queues.clear()
        self._ranks.clear()
        self._count = 0

    def _queue_of(self, request: Any) -> deque[Any]:
        rank = self._rank(request)
        queue = self._queues.get(rank)
        if queue is None:
            queue = self._queues[rank] = deque()
            insort(self._ranks, rank)
        return queue
