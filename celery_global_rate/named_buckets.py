"""Limits that several tasks, or all that comes from a queue, have together, as the configuration has them, checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from celery.exceptions import ImproperlyConfigured
from celery.schedules import crontab

from .limits.limit import AS_BUCKET, Limit, Limits, spelled
from .limits.refills import Refills
from .settings import BUCKETS as SETTING
from .task_routes import queue_rates

FIELDS = ("rate", "tasks", "queues", "key", "cost")
RATE_FIELDS = ("rate", "burst", "window", "offset", "timezone", "amount", "maximum")
#: How starts are counted against a rate: spread out, the default; from one edge of a calendar to the next; or in any
#: period of that length. Or a crontab: so many at each of its instants.
SMOOTH, FIXED, SLIDING = WINDOWS = "smooth", "fixed", "sliding"
CRONTAB = Refills.kind
#: Where those belong that stand beside a rate, and not in it.
_REFILLS = "'window': crontab(minute=0), 'amount': 1000, 'maximum': 1000"
_FIXED_RATE = "'rate': '10000/d', 'window': 'fixed'"
RATE_EXAMPLES = {
    "burst": "'rate': '10/s', 'burst': 20",
    "window": _FIXED_RATE,
    "offset": f"{_FIXED_RATE}, 'offset': '9h'",
    "timezone": f"{_FIXED_RATE}, 'timezone': 'America/Los_Angeles'",
    "amount": _REFILLS,
    "maximum": _REFILLS,
}
#: The most limits of one named bucket, and of all that one request may have to pass.
MOST_LIMITS, MOST_PASSED = 4, 6

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

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


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
        is_route: whether it is a queue's `rate_limit` in `task_routes`.
    """

    name: str
    limits: Limits
    tasks: tuple[str, ...]
    queues: tuple[str, ...]
    key: str | None = None
    cost: int | str | None = None
    is_route: bool = False

    @property
    def windows(self) -> tuple[str, ...]:
        """The part of the key of each limit, in their order: a quota by its windows, the others by their interval.

        The shortest interval comes first. A rate may then move within the list, or change a little, and keeps its
        state.
        """
        by_interval = sorted((it for it in self.limits if it.window is None), key=lambda limit: limit.exact_ps)

        def window(limit: Limit) -> str:
            if limit.window is not None:
                return limit.window.key
            place = by_interval.index(limit) + 1
            return f"{SMOOTH}{place if place > 1 else ''}"

        return tuple(map(window, self.limits))

    def covers(self, task: str, queue: str | None) -> bool:
        """Whether it is for a task that came from a queue (None if that is not known): either one matches."""
        return queue in self.queues or any(matches(task, pattern) for pattern in self.tasks)

    @property
    def digest(self) -> str:
        """A short text that is equal in two workers if they have the same configuration of it."""
        limits = [(limit.exact_ps, limit.burst, *([limit.window.key] if limit.window else ())) for limit in self.limits]
        text = json.dumps(
            [limits, sorted(self.tasks), sorted(self.queues), self.key, *([] if self.cost is None else [self.cost])]
        )
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
    named = {name: _read(name, entry, zone) for name, entry in entries.items()}
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
        if limit and not _NAME.fullmatch(queue):
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
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ImproperlyConfigured(
            f"{SETTING}: {name!r:.80} cannot be a name: use 1 to 64 letters, digits and any of _ . -"
        )
    if not isinstance(entry, Mapping):
        raise ImproperlyConfigured(
            f"{SETTING}, {name}: {entry!r:.80} is not a dictionary: use one with {_listed(FIELDS)}"
        )
    _refuse_unknown(name, entry, FIELDS)
    limits = _limits(name, entry.get("rate"), zone)
    tasks, queues = (_names(name, field, entry.get(field)) for field in ("tasks", "queues"))
    if not tasks and not queues:
        raise _error(name, "tasks", entry.get("tasks"), "name the tasks, or the queues, that it is for")
    return NamedBucket(
        name, limits, tasks, queues, _key(name, entry.get("key")), _cost(name, entry.get("cost"), limits)
    )


def _limits(name: str, rates: object, zone: str) -> Limits:
    listed = list(rates) if isinstance(rates, (list, tuple)) else [rates]
    if not listed or len(listed) > MOST_LIMITS:
        raise _error(name, "rate", rates, f"use one rate, or a list of up to {MOST_LIMITS}")
    limits = tuple(_limit(name, rate, zone) for rate in listed)
    for place, limit in enumerate(limits):
        for other in limits[:place] + limits[place + 1 :]:
            if other.has_no_effect_beside(limit):
                raise _error(
                    name, "rate", rates, f"{other} has no effect beside {limit}, which is never faster: leave it out"
                )
    quotas = {limit.window.key: limit for limit in limits if limit.window}
    for limit in limits:
        if limit.window and (other := quotas[limit.window.key]) is not limit:
            raise _error(name, "rate", rates, f"{other} and {limit} are the same refills: keep one of them")
    return limits


def _limit(name: str, rate: object, zone: str) -> Limit:
    """One rate. Crontabs are meant in the application's time zone, as beat does."""
    fields = rate if isinstance(rate, Mapping) else {"rate": rate}
    _refuse_unknown(name, fields, RATE_FIELDS, "rate")
    window = _window(name, fields)
    written = fields.get("rate")
    if window != FIXED and isinstance(written, str) and written.endswith("month"):
        raise _error(name, "rate", written, "months differ in length: add 'window': 'fixed', or use N/d")
    try:
        if window == CRONTAB:
            meant_in = fields.get("timezone") or zone
            if not meant_in:
                raise ValueError(
                    "a crontab needs one time zone for all workers: add 'timezone', as enable_utc is False and the "
                    "application has none"
                )
            return Limit.refilled(fields["window"], fields.get("amount"), fields.get("maximum"), meant_in)
        if window == FIXED and written is not None:
            return Limit.in_windows(written, fields.get("offset"), fields.get("timezone"))
        if window == SLIDING and written is not None:
            return Limit.in_any(written)
        limit = Limit.parse(written, fields.get("burst"), AS_BUCKET)
    except ValueError as exc:
        raise ImproperlyConfigured(f"{SETTING}, {name}: rate: {exc}") from None
    if limit is None:
        raise _error(name, "rate", rate, "a bucket without a limit has no effect: use N/s, N/m, N/h, N/d or N/30s")
    return limit


def _window(name: str, fields: Mapping[Any, Any]) -> str:
    """How starts are counted against a rate, after a check that its other fields are for such a window."""
    window = fields.get("window")
    if isinstance(window, crontab):
        window = CRONTAB
    elif window is not None and window not in WINDOWS:
        close = get_close_matches(str(window), WINDOWS, 1)
        remedy = f"did you mean {close[0]!r}?" if close else f"use {_listed(WINDOWS, ' or ')}, or a crontab"
        raise _error(name, "rate: window", window, remedy)
    window = window or SMOOTH
    misplaced = {}
    if window != SMOOTH:
        misplaced["burst"] = f"all N of a {window} window may start at once: leave it out"
    if window != FIXED:
        misplaced["offset"] = misplaced["timezone"] = "it is for fixed windows: add 'window': 'fixed'"
    if window == CRONTAB:
        misplaced["burst"] = "what comes by a crontab may start at once, up to the maximum: leave it out"
        misplaced["rate"] = "a crontab has an amount and a maximum instead: leave it out"
        del misplaced["timezone"]
    else:
        misplaced["amount"] = misplaced["maximum"] = f"it is for refills by a crontab: {{{_REFILLS}}}"
    for field, remedy in misplaced.items():
        if fields.get(field) is not None:
            raise _error(name, "rate" if field == "rate" else f"rate: {field}", fields[field], remedy)
    return str(window)


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


def _refuse_unknown(name: str, entry: Mapping[Any, Any], fields: Iterable[str], within: str = "") -> None:
    for field in entry:
        if field not in fields:
            close = get_close_matches(str(field), fields, 1)
            remedy = f"did you mean {close[0]!r}?" if close else f"use {_listed(fields)}"
            if field in RATE_EXAMPLES:
                remedy = f"it belongs to a rate, as in 'rate': {{{RATE_EXAMPLES[field]}}}"
            place = f"{within}: " if within else ""
            raise ImproperlyConfigured(f"{SETTING}, {name}: {place}{field!r:.80} is not a field of it: {remedy}")


def _listed(fields: Iterable[str], separator: str = ", ") -> str:
    return separator.join(map(repr, fields))


def _error(name: str, field: str, value: object, remedy: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{SETTING}, {name}: {field} = {value!r:.80}: {remedy}")
