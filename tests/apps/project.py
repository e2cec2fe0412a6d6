"""Tasks beside those of `testbed.app`, in a module that its workers include: retries, and parts of a canvas."""

from __future__ import annotations

import time
from typing import Any

from testbed.app import app, record


@app.task(name="again", bind=True, rate_limit="2/s", max_retries=3)
def again(self: Any) -> None:
    record("start", self.name, self.request.id)
    if self.request.retries < self.max_retries:
        raise self.retry(countdown=0)


@app.task(name="add", bind=True, rate_limit="50/s", ignore_result=False)
def add(self: Any, left: int, right: int, run_time_s: float = 0.0) -> int:
    record("start", self.name, self.request.id)
    time.sleep(run_time_s)
    return left + right


@app.task(name="total", bind=True, rate_limit="50/s", ignore_result=False)
def total(self: Any, numbers: list[int]) -> int:
    record("start", self.name, self.request.id)
    return sum(numbers)
