"""What each task of an application has to pass, without workers and without Redis: `global-rate plan`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..declared_limits import NOT_LIMITED, declared_limits, has_own_strategy
from ..limits.limit import Limits, spelled
from ..named_buckets import NamedBucket, matches
from ..task_routes import has_functions
from ..worker.status import FUNCTIONS, in_vain

HEADS = ("TASK", "FROM QUEUE", "LIMITS")
OTHER, ANY = "any other", "any"


def lines(app: Any, named: Mapping[str, NamedBucket]) -> list[str]:
    """A table of the tasks and what they have to pass, and below it what cannot be meant.

    Args:
        app: the application, finalized and checked.
        named: its named buckets.
    """
    tasks = {name: task for name, task in sorted(app.tasks.items()) if _is_shown(name, named)}
    rows = [row for task in tasks.values() for row in _rows(app, named, task)]
    widths = [max(map(len, column)) for column in zip(HEADS, *rows)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in (HEADS, *rows)]
    notes = [*in_vain(named.values(), app.tasks), *_without_effect(app, named)]
    if has_functions(app.conf):
        notes.append(FUNCTIONS)
    return table + [""] * bool(notes) + notes


def _is_shown(task: str, named: Mapping[str, NamedBucket]) -> bool:
    """Celery's own tasks matter only if a pattern means them."""
    return not task.startswith("celery.") or any(matches(task, it) for bucket in named.values() for it in bucket.tasks)


def _rows(app: Any, named: Mapping[str, NamedBucket], task: Any) -> Iterator[tuple[str, str, str]]:
    """One for each queue where it makes a difference."""
    own = declared_limits(app, task)
    if has_own_strategy(task):
        yield task.name, ANY, NOT_LIMITED if own else "none"
        return
    elsewhere = _passed(own, named, task.name, None)
    queues = dict.fromkeys(queue for bucket in named.values() for queue in bucket.queues)
    of_queues = {queue: passed for queue in queues if (passed := _passed(own, named, task.name, queue)) != elsewhere}
    for queue, passed in of_queues.items():
        yield task.name, queue, passed
    yield task.name, OTHER if of_queues else ANY, elsewhere


def _passed(own: Limits, named: Mapping[str, NamedBucket], task: str, queue: str | None) -> str:
    buckets = (bucket for bucket in named.values() if bucket.covers(task, queue))
    parts = [f"its own {spelled(own)}"] if own else []
    parts += (f"{it.name} {it.terms}" for it in buckets)
    return "; ".join(parts) or "none"


def _without_effect(app: Any, named: Mapping[str, NamedBucket]) -> Iterator[str]:
    """Limits of tasks that are never what they wait for."""
    strict = [bucket for bucket in named.values() if bucket.key is None and not isinstance(bucket.cost, str)]
    for name, task in sorted(app.tasks.items()):
        for limit in declared_limits(app, task):
            for bucket in (it for it in strict if it.covers(name, None)):
                if stricter := next((it for it in bucket.limits if limit.has_no_effect_beside(it)), None):
                    yield f"task {name}: its own {limit} has no effect beside {stricter} of bucket {bucket.name}"
