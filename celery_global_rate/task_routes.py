"""`rate_limit` inside `task_routes`. Celery ignores it there; here it is the limit that it says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from celery.exceptions import ImproperlyConfigured

SETTING = "task_routes"
RATE = "rate_limit"


def queue_rates(conf: Any) -> dict[str, Any]:
    """The rates of queues: those of entries with a queue.

    Raises:
        ImproperlyConfigured: two entries give a queue different rates.
    """
    found: dict[str, Any] = {}
    for pattern, route in _entries(conf):
        queue = route.get("queue")
        if queue is None or route.get(RATE) is None:
            continue
        name = str(getattr(queue, "name", queue))  # it may be kombu's
        if found.setdefault(name, route[RATE]) != route[RATE]:
            raise ImproperlyConfigured(
                f"{SETTING}, {_text(pattern)}: {RATE} = {route[RATE]!r:.80}: another entry gives queue {name} "
                f"{found[name]!r:.80}: use one rate for a queue"
            )
    return found


def rate_of(conf: Any, task: str) -> Any:
    """The rate of a task, by the first entry for it that has no queue; None if there is none."""
    for pattern, route in _entries(conf):
        if route.get("queue") is None and route.get(RATE) is not None and _matches(pattern, task):
            return route[RATE]
    return None


def has_functions(conf: Any) -> bool:
    """Whether some routes are functions: what they would say of a rate cannot be asked in a worker."""
    return any(not isinstance(part, (Mapping, list, tuple)) for part in _parts(conf))


def _parts(conf: Any) -> list[Any]:
    routes = conf.get(SETTING)
    if routes is None:
        return []
    return list(routes) if isinstance(routes, (list, tuple)) else [routes]


def _entries(conf: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """What is data in the routes: a pattern for names of tasks, and where they go."""
    for part in _parts(conf):
        if isinstance(part, (Mapping, list, tuple)):
            for entry in part.items() if isinstance(part, Mapping) else part:
                if isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[1], Mapping):
                    yield entry[0], entry[1]


def _matches(pattern: Any, task: str) -> bool:
    """As Celery's own routes do."""
    if isinstance(pattern, re.Pattern):
        return bool(pattern.match(task))
    return fnmatchcase(task, pattern) if "*" in pattern else bool(pattern == task)


def _text(pattern: Any) -> str:
    return str(pattern.pattern if isinstance(pattern, re.Pattern) else pattern)
