"""What a limiter is for: the buckets of one name."""

from __future__ import annotations

from dataclasses import dataclass

from ..limits.bucket import Bucket
from ..limits.limit import Limits


@dataclass(frozen=True)
class Terms:
    """A name, and the limits that count for it.

    Attributes:
        name: of a named bucket, or of a task.
        limits: those that are declared.
        windows: the part of the key of each of them.
        has_keys: whether there is a bucket for each value of a key.
        is_crossed: whether lanes with other limits count there as well, as those of tasks do that have their own.
    """

    name: str
    limits: Limits
    windows: tuple[str, ...]
    has_keys: bool = True
    is_crossed: bool = True

    @property
    def largest_cost(self) -> int:
        """The most units that one call can take."""
        return min(limit.largest_cost for limit in self.limits)

    def buckets(self, limits: Limits, value: str | None) -> tuple[Bucket, ...]:
        """The buckets for a value of the key, with the limits in force."""
        pairs = zip(self.windows, limits)
        return tuple(Bucket(self.name, window, limit, self.is_crossed).of(value) for window, limit in pairs)
