"""The limits that an application declares."""

from __future__ import annotations

from typing import Any

from celery.utils.functional import firstmethod

from .limit import Limit

#: What `'*'` says, of the first annotation that has it; as Celery itself looks it up.
annotation_for_all = firstmethod("annotate_any")


def declared_limit(app: Any, task: Any) -> Limit | None:
    """The limit that a task declares: its own attribute, an annotation, or the default of the application.

    Celery's own tasks, such as `celery.chord_unlock`, have a limit only where they are named: a default, or a base
    class, that is meant for the tasks of the application would stall every chord.

    Raises:
        ValueError: a rate or burst that cannot be meant.
    """
    rate = getattr(task, "rate_limit", None)
    if task.name.startswith("celery."):
        for_all = annotation_for_all(app.annotations) or {}
        of_base = getattr(app.Task, "rate_limit", None)
        if rate in (app.conf.task_default_rate_limit, for_all.get("rate_limit"), of_base):
            return None
    return Limit.parse(rate, getattr(task, "rate_burst", None))
