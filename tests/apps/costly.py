"""Tasks whose arguments say what they cost. To be included beside `testbed.app`."""

from __future__ import annotations

import time

from celery import Task, signals

from testbed.app import SETUP, app, record


@app.task(name="ask", bind=True, rate_limit=SETUP.get("rate"), ignore_result=False)
def ask(self: Task, tokens: int, run_time_s: float = 0.0) -> int:
    record("start", self.name, self.request.id)
    time.sleep(run_time_s)
    return tokens


@app.task(name="asks_again", bind=True)
def asks_again(self: Task, tokens: int) -> None:
    """It asks three times more, at once."""
    record("start", self.name, self.request.id)
    if self.request.retries < 3:
        raise self.retry(countdown=0)


@app.task(name="total", bind=True)
def total(self: Task, numbers: list[int]) -> None:
    record("start", self.name, self.request.id)


@app.task(name="told", bind=True)
def told(self: Task, *args: object) -> None:
    """Called back after a failure."""
    record("start", self.name, self.request.id)


@signals.task_failure.connect
def on_failure(task_id: str, exception: Exception, **kwargs: object) -> None:
    record("failed", type(exception).__name__, task_id)
