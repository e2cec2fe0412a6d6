"""Limits that several tasks, or all that comes from a queue, have together, as the configuration has them, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from celery.exceptions import ImproperlyConfigured

from .feedback.longest import read_longest_s
from .limits.limit import AS_BUCKET, Limit, Limits, spelled
from .limits.rates import NAME, invalid, listed, read_rates, refuse_unknown, window_keys
from .settings import BUCKETS as SETTING
from .task_routes import queue_rates

FIELDS = ("rate", "tasks", "queues", "key", "cost", "backoff")
#: The most limits that one request may have to pass.
MOST_PASSED = 6

#: What a key or a cost begins with that is the name of a header, and not of an argument.
HEADERS = "headers."
#: The header of one message that replaces its costs.
COST_HEADER = "global_rate_cost"
#: Headers that Celery sets itself, with another value for each message or none that tells tenants apart.
CELERYS_HEADERS = (
    *("lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id"),
    *("parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers"),
    *("stamps", "compression"),
)


@dataclass(frozen=True)
class NamedBucket:
    """One entry of the setting.

    Attributes:
        name: as operators call it.
        limits: one or several, in the order in which they are written.
        tasks: names of tasks, and patterns with `*`, `?` and `[...]`.
        queues: names of queues.
        key: an argument by its name, or `headers.` and the name of a header: there is one bucket for each value of it.
            None if all requests share one.
        cost: units that each start takes of each limit: a number, an argument by its name, or `headers.` and the name
            of a header. None if it is one, whatever a message says.
        backoff_s: the longest pause that an API may ask for by an answer to its tasks, in seconds; 0 if none may. None
            if it is as the setting for all says.
        is_route: whether it is a queue's `rate_limit` in `task_routes`.
    """

    name: str
    limits: Limits
    tasks: tuple[str, ...]
    queues: tuple[str, ...]
    key: str | None = None
    cost: int | str | None = None
    backoff_s: float | None = None
    is_route: bool = False

    @property
    def windows(self) -> tuple[str, ...]:
        """The part of the key of each limit, in their order."""
        return window_keys(self.limits)

    def covers(self, task: str, queue: str | None) -> bool:
        """Whether it is for a task that came from a queue (None if that is not known): either one matches."""
        return queue in self.queues or any(matches(task, pattern) for pattern in self.tasks)

    @property
    def digest(self) -> str:
        """A short text that is equal in two workers if they have the same configuration of it."""
        limits = [(limit.exact_ps, limit.burst, *([limit.window.key] if limit.window else ())) for limit in self.limits]
        said = [limits, sorted(self.tasks), sorted(self.queues), self.key]
        if self.cost is not None or self.backoff_s is not None:
            said += [self.cost] if self.backoff_s is None else [self.cost, self.backoff_s]
        text = json.dumps(said)
        return hashlib.sha1(text.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        parts = (f"{kind} {', '.join(names)}" for kind, names in (("tasks", self.tasks), ("queues", self.queues)))
        covered = "; ".join(part for part, names in zip(parts, (self.tasks, self.queues)) if names)
        return f"{self.name} at {self.terms} ({covered})"

    @property
    def terms(self) -> str:
        """Its limits, its key and its cost, for people."""
        per = f" per {self.key}" if self.key else ""
        cost = "" if self.cost is None else f", cost {self.cost}"
        return f"{spelled(self.limits)}{per}{cost}"


def matches(task: str, pattern: str) -> bool:
    """Whether a pattern is for a task. Celery's own tasks have to be named: `*` is meant for the application's."""
    return fnmatchcase(task, pattern) and (not task.startswith("celery.") or pattern.startswith("celery."))


def read_named_buckets(conf: Any) -> dict[str, NamedBucket]:
    """The named buckets of an application, by their names.

    Raises:
        ImproperlyConfigured: one cannot be meant; the text names it, the field, its value and the remedy.
    """
    entries = conf.get(SETTING)
    if entries is None:
        entries = {}
    if not isinstance(entries, Mapping):
        raise ImproperlyConfigured(
            f"{SETTING} is not a dictionary but {type(entries).__name__}: "
            f"use one, of entries such as 'crm-api': {{'rate': '10/s', 'tasks': ['crm.*']}}"
        )
    # Without one, beat takes UTC, or that of its machine.
    zone = str(conf.get("timezone") or ("UTC" if conf.get("enable_utc", True) else ""))
    try:
        named = {name: _read(name, entry, zone) for name, entry in entries.items()}
    except ValueError as exc:
        raise ImproperlyConfigured(str(exc)) from None
    for queue, rate in queue_rates(conf).items():
        if bucket := _routed(queue, rate):
            if queue in named:
                raise ImproperlyConfigured(
                    f"{SETTING}, {queue}: queue {queue} has a rate_limit in task_routes, whose bucket has the same "
                    f"name: keep one of them"
                )
            named[queue] = bucket
    return named


def _routed(queue: str, rate: object) -> NamedBucket | None:
    """The bucket for the `rate_limit` of a queue in `task_routes`; None if it means no limit."""
    try:
        limit = Limit.parse(rate, spelling=AS_BUCKET)
        if limit and not NAME.fullmatch(queue):
            raise ValueError(f"its bucket cannot have that name: use a bucket of {SETTING} for it")
    except ValueError as exc:
        raise ImproperlyConfigured(f"task_routes: rate_limit of queue {queue!r:.80}: {exc}") from None
    return NamedBucket(queue, (limit,), (), (queue,), is_route=True) if limit else None


def check_against_tasks(
    named: Mapping[str, NamedBucket], tasks: Iterable[str], declared: Callable[[str], Limits]
) -> None:
    """Check the named buckets together with the tasks of the application.

    Args:
        named: by their names.
        tasks: the names of all tasks.
        declared: what a task declares for itself.

    Raises:
        ImproperlyConfigured: a bucket has the name of a task, or a request would have to pass too many limits.
    """
    for_queue: dict[str | None, set[str]] = {None: set()}
    for name, bucket in named.items():
        for each in bucket.queues:
            for_queue.setdefault(each, set()).add(name)
    for task in tasks:
        if task in named:
            raise ImproperlyConfigured(
                f"{SETTING}: {task!r} is the name of a task as well: operators could not tell them apart, rename one"
            )
        for_task = {name for name, bucket in named.items() if bucket.covers(task, None)}
        for queue, names in for_queue.items():
            passed = sorted(for_task | names)
            count = len(declared(task)) + sum(len(named[name].limits) for name in passed)
            if count > MOST_PASSED:
                raise ImproperlyConfigured(
                    f"{SETTING}: task {task}{f' from queue {queue}' if queue else ''} has to pass {count} limits, "
                    f"its own and those of {', '.join(passed)}: {MOST_PASSED} is the most, so leave some out of "
                    f"'tasks' or 'queues'"
                )


def _read(name: object, entry: object, zone: str) -> NamedBucket:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{SETTING}: {name!r:.80} cannot be a name: use 1 to 64 letters, digits and any of _ . -")
    if not isinstance(entry, Mapping):
        raise ValueError(f"{SETTING}, {name}: {entry!r:.80} is not a dictionary: use one with {listed(FIELDS)}")
    refuse_unknown(_place(name), entry, FIELDS)
    limits = read_rates(_place(name), entry.get("rate"), zone)
    tasks, queues = (_names(name, field, entry.get(field)) for field in ("tasks", "queues"))
    if not tasks and not queues:
        raise _error(name, "tasks", entry.get("tasks"), "name the tasks, or the queues, that it is for")
    key, cost = _key(name, entry.get("key")), _cost(name, entry.get("cost"), limits)
    backoff_s = read_longest_s(f"{_place(name)}: backoff", entry.get("backoff"))
    return NamedBucket(name, limits, tasks, queues, key, cost, backoff_s)


def _names(name: str, field: str, names: object) -> tuple[str, ...]:
    if names is None:
        return ()
    listed = list(names) if isinstance(names, (list, tuple)) else []
    if isinstance(names, (set, frozenset)):  # the order of a set differs from process to process
        listed = sorted(names, key=str)
    found = tuple(it for it in listed if isinstance(it, str) and it)
    if len(found) < max(1, len(listed)):
        raise _error(name, field, names, f"use a list of the names of {field}, with one name at least")
    return found


def _key(name: str, key: object) -> str | None:
    if key is None:
        return None
    if not isinstance(key, str) or not key.removeprefix(HEADERS):
        raise _error(name, "key", key, f"use the name of an argument, or {HEADERS!r} and the name of a header")
    _refuse_celerys(name, "key", key)
    return key


def _cost(name: str, cost: object, limits: Limits) -> int | str | None:
    if cost is None:
        return None
    if isinstance(cost, str) and cost.removeprefix(HEADERS):
        _refuse_celerys(name, "cost", cost)
        if cost == HEADERS + COST_HEADER:
            raise _error(name, "cost", cost, "that header replaces any cost: use 'cost': 1, or another header")
        return cost
    if not isinstance(cost, int) or isinstance(cost, bool) or cost < 0:
        remedy = f"use a whole number, the name of an argument, or {HEADERS!r} and the name of a header"
        raise _error(name, "cost", cost, remedy)
    if cost == 0:
        raise _error(name, "cost", cost, "nothing would count: leave the bucket out, or use 1")
    for limit in limits:
        if cost > limit.largest_cost:
            raise _error(name, "cost", cost, f"{limit} has at most {limit.largest_cost} units for one start")
    return cost


def _refuse_celerys(name: str, field: str, text: str) -> None:
    if text.startswith(HEADERS) and text[len(HEADERS) :] in CELERYS_HEADERS:
        raise _error(name, field, text, "that header is Celery's own: use one that the application sets")


def _error(name: str, field: str, value: object, remedy: str) -> ValueError:
    return invalid(_place(name), field, value, remedy)


def _place(name: str) -> str:
    return f"{SETTING}, {name}"
