"""One limit of a lane, and whose state in Redis it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import unquote

from .limit import Limit

#: The window of the limit that a task declares for itself.
OWN = ""


@dataclass(frozen=True)
class Bucket:
    """One limit, and where its slots are counted.

    Attributes:
        name: of a task, or of a named bucket: what operators set is set by it.
        window: which limit of that name, and for which value of its key; empty for a task's own.
        limit: its rate and burst.
        is_crossed: whether lanes with other limits count there as well: free slots that one of them has to skip are
            kept for the others.
    """

    name: str
    window: str
    limit: Limit
    is_crossed: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """What tells it from other buckets."""
        return self.name, self.window

    @property
    def key_value(self) -> str | None:
        """The value of its key, as a part of a Redis key; None if it has none."""
        _, has_value, value = self.window.partition(":")
        return value if has_value else None

    @property
    def value(self) -> str | None:
        """The same for people."""
        return None if self.key_value is None else unquote(self.key_value)

    def of(self, value: str | None) -> Bucket:
        """The bucket for a value of the key, as a part of a Redis key; itself without one."""
        return self if value is None else replace(self, window=window_of(self.window, value))


def window_of(window: str, value: str | None) -> str:
    """A limit of a named bucket, for a value of its key, if it has one."""
    return window if value is None else f"{window}:{value}"


def own(name: str, limit: Limit | None) -> tuple[Bucket, ...]:
    """The buckets of a task that has its own limit only, or none."""
    return (Bucket(name, OWN, limit),) if limit else ()
