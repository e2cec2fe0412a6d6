"""What a request costs: how many units it takes of each limit that it has to pass."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..named_buckets import COST_HEADER, HEADERS, NamedBucket
from .keys import header, said

logger = logging.getLogger(__name__)


class RequestCosts:
    """Reads what requests cost, each of them once, when it begins to be held.

    Args:
        named: the named buckets of the application.
    """

    def __init__(self, named: Mapping[str, NamedBucket]) -> None:
        self._costly = {name: bucket for name, bucket in named.items() if bucket.cost is not None}
        #: Tasks and named buckets of which the log has said that a message had no cost.
        self._silent: set[tuple[str, str]] = set()

    def read(self, request: Any, names: tuple[str, ...]) -> tuple[int, ...] | None:
        """What a request costs.

        Args:
            request: Celery's.
            names: whose limits it passes: its task, and named buckets.

        Returns:
            The units that it takes of each limit of each name, in the same order; None if it takes one of each.

        Raises:
            ValueError: it says something of its cost that cannot be meant.
        """
        costly = [self._costly[name] for name in names if name in self._costly] if self._costly else None
        if not costly:
            return None
        if (told := header(request, COST_HEADER)) is None:
            units = {bucket.name: self._cost(request, bucket) for bucket in costly}
        else:
            units = {bucket.name: _units(request, bucket, HEADERS + COST_HEADER, told) for bucket in costly}
        other = 0 if told == 0 else 1
        return tuple([units.get(name, other) for name in names])

    def _cost(self, request: Any, bucket: NamedBucket) -> int:
        cost = bucket.cost
        if isinstance(cost, int):
            return cost
        assert cost is not None
        found = said(request, cost)
        if found is None:
            self._note_silence(request.task.name, bucket)
            return 1
        return _units(request, bucket, cost, found)

    def _note_silence(self, task: str, bucket: NamedBucket) -> None:
        if (task, bucket.name) not in self._silent:
            self._silent.add((task, bucket.name))
            logger.warning(
                "global-rate: bucket %s: a message of %s has no %s: it costs 1", bucket.name, task, bucket.cost
            )


def _units(request: Any, bucket: NamedBucket, source: str, found: object) -> int:
    problem = "is not a whole number >= 0: send a number of units, such as 1"
    if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
        most = min(limit.largest_cost for limit in bucket.limits)
        if found <= most:
            return int(found)
        problem = f"is more than one start can take: send {most} at the most"
    raise ValueError(
        f"task {request.task.name}: its cost in bucket {bucket.name}, {source} = {_shown(found)}, {problem}"
    )


def _shown(value: object) -> str:
    """A value as an error names it: on one line, and no longer than 80 letters."""
    try:
        text = repr(value)
    except Exception:  # somebody's class has no text
        text = f"<{type(value).__name__}>"
    return (text if text.isprintable() else repr(text))[:80]
