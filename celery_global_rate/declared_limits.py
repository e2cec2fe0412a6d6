"""The limits that an application declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.utils.functional import firstmethod

from .limits.limit import Limit, Limits
from .limits.override import Kept
from .named_buckets import NamedBucket
from .task_routes import rate_of

#: What `'*'` says, of the first annotation that has it; as Celery itself looks it up.
annotation_for_all = firstmethod("annotate_any")
CELERYS_STRATEGY = "celery.worker.strategy:default"
#: What is said of a task with another one.
NOT_LIMITED = "not limited: it has its own Strategy, and only Celery's is known to ask for a limit"


def declared_limits(app: Any, task: Any) -> Limits:
    """What a task declares, one limit or none: its own attribute, an annotation, or the default of the application; or
    else what `task_routes` say of it.

    Celery's own tasks, such as `celery.chord_unlock`, have a limit only if they are named: a default, or a base
    class, that is meant for the tasks of the application would stall every chord.

    Raises:
        ValueError: the rate or burst is invalid.
    """
    return _limits(app, task, getattr(task, "rate_limit", None))


def kept_of(app: Any, named: Mapping[str, NamedBucket], name: str) -> list[Kept]:
    """What stays of each limit that a task or a named bucket has or may be given when an operator sets a rate."""
    if name in named:
        return [Kept.of(limit) for limit in named[name].limits]
    return [Kept(getattr(app.tasks[name], "rate_burst", None))]


def has_own_strategy(task: Any) -> bool:
    """Whether something else than Celery's own strategy takes the messages of a task, as with celery-batches.

    Celery's asks for the bucket of the task. Another one may, if it calls Celery's; that cannot be seen.
    """
    strategy = getattr(task, "Strategy", CELERYS_STRATEGY)
    if not isinstance(strategy, str):
        strategy = f"{strategy.__module__}:{strategy.__name__}"
    return bool(strategy != CELERYS_STRATEGY)


class Declared:
    """What the tasks of a worker declare, while their attributes show the rate in force.

    `inspect registered` and Flower show a task's `rate_limit`, and stock Celery writes a new rate there.

    Args:
        app: the application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        #: By the names of tasks: the task, what it declares and what its attribute was made to show.
        self._shown: dict[str, tuple[Any, Any, str | None]] = {}

    def limits(self, task: Any) -> Limits:
        """What a task declares, one limit or none, whatever it shows.

        Raises:
            ValueError: the rate or burst is invalid.
        """
        return _limits(self._app, task, self._rate(task))

    def show(self, task: Any, rate: str | None) -> None:
        """Let the attribute of a task show another rate; None for no limit."""
        self._shown[task.name] = (task, self._rate(task), rate)
        task.rate_limit = rate

    def restore(self, task: Any) -> None:
        """Let the attribute of a task show what it declares."""
        if task.name in self._shown:
            task.rate_limit = self._rate(task)
            del self._shown[task.name]

    def restore_all(self) -> None:
        """Leave all tasks as they were: another worker of this process would take what they show for declared."""
        for task, _, _ in list(self._shown.values()):
            self.restore(task)

    def _rate(self, task: Any) -> Any:
        """What a task declares, even if it was reloaded or was given another rate meanwhile."""
        rate = getattr(task, "rate_limit", None)
        known, declared, shown = self._shown.get(task.name, (None, None, None))
        return declared if known is task and shown == rate else rate


def _limits(app: Any, task: Any, rate: Any) -> Limits:
    if task.name.startswith("celery."):
        for_all = annotation_for_all(app.annotations) or {}
        of_base = getattr(app.Task, "rate_limit", None)
        if rate in (app.conf.task_default_rate_limit, for_all.get("rate_limit"), of_base):
            return ()
    if rate is None:
        rate = rate_of(app.conf, task.name)
    limit = Limit.parse(rate, getattr(task, "rate_burst", None))
    return (limit,) if limit else ()
