"""Buckets in an order of their own, of which mostly the first ones are looked at."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import count

from .bucket import Bucket


class Ordered:
    """Buckets by a number each, the lowest first, and by arrival where numbers are equal."""

    def __init__(self) -> None:
        self._keys: dict[Bucket, tuple[float, int]] = {}
        self._sorted: list[tuple[float, int, Bucket]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, bucket: Bucket) -> bool:
        return bucket in self._keys

    def __iter__(self) -> Iterator[Bucket]:
        for _, _, bucket in self._sorted:
            yield bucket

    def first(self, most: int) -> list[Bucket]:
        """The first ones."""
        return [bucket for _, _, bucket in self._sorted[:most]]

    def put(self, bucket: Bucket, number: float) -> None:
        """Take a bucket in, or move it to another number."""
        key = self._keys.get(bucket)
        if key is None or key[0] != number:
            self.discard(bucket)
            key = self._keys[bucket] = (number, next(self._order))
            insort(self._sorted, (*key, bucket))

    def discard(self, bucket: Bucket) -> None:
        """Take a bucket out, if it is in."""
        if key := self._keys.pop(bucket, None):
            del self._sorted[bisect_left(self._sorted, key)]

    def clear(self) -> None:
        """Take all of them out."""
        self._keys.clear()
        self._sorted.clear()
