"""Tasks that pass several limits, some of which they share, and end in different ways after different times.

To be included beside `testbed.app`. Each run that has got so far records its end, or that it is to run again.
"""

from __future__ import annotations

import time
from typing import Any

from celery import Task
from celery.exceptions import Reject

from testbed.app import SETUP, app, record

#: The ways in which a task may end that runs once more, if its message has not come before.
AGAIN = ("retries", "retries_later", "requeues")
#: Of `retries_later`, in seconds.
LATER_S = 0.5


def is_again(task: Task) -> bool:
    return bool(task.request.retries or task.request.delivery_info.get("redelivered"))


def run(task: Task, run_time_s: float, end: str) -> None:
    """Start, take so long, and end in that way."""
    record("start", task.name, task.request.id)
    time.sleep(run_time_s)
    if end in AGAIN and not is_again(task):
        record("again", task.name, task.request.id)
        if end == "requeues":
            raise Reject("on purpose", requeue=True)
        raise task.retry(countdown=LATER_S if end == "retries_later" else 0)
    record("end", task.name, task.request.id)
    if end == "fails":
        raise RuntimeError("on purpose")
    if end == "rejects":
        raise Reject("on purpose", requeue=False)


def task(name: str, **options: Any) -> None:
    @app.task(name=name, bind=True, acks_late=True, reject_on_worker_lost=True, **options)
    def runs(self: Task, run_time_s: float = 0.0, end: str = "returns") -> None:
        run(self, run_time_s, end)


task("api.fetch")
task("api.push", rate_limit=SETUP.get("rate"))
task("api.sync")
task("notify")
