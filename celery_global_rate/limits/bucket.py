"""One limit of a lane, and whose state in Redis it is."""

from __future__ import annotations

from dataclasses import dataclass

from .limit import Limit

#: The window of the limit that a task declares for itself.
OWN = ""


@dataclass(frozen=True)
class Bucket:
    """One limit, and where its slots are counted.

    Attributes:
        name: of a task, or of a named bucket: what operators set is set by it.
        window: which limit of that name; empty for a task's own.
        limit: its rate and burst.
        is_crossed: whether lanes with other limits count there as well: free slots that one of them has to skip are
            kept for the others.
    """

    name: str
    window: str
    limit: Limit
    is_crossed: bool = False


def own(name: str, limit: Limit | None) -> tuple[Bucket, ...]:
    """The buckets of a task that has its own limit only, or none."""
    return (Bucket(name, OWN, limit),) if limit else ()
