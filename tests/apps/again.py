"""Workers in this process, one after the other: two that refuse their URL, one its rate, and then one that works.

The first argument is a broker and result backend, the second the Redis of the limits. Prints what has become of each.
"""

from __future__ import annotations

import sys

import celery.contrib.testing.tasks  # noqa: F401  (start_worker calls its task)
from celery import Celery
from celery.contrib.testing.worker import start_worker

from celery_global_rate import GlobalRateLimit

broker, limits = sys.argv[1:]
app = Celery("again", broker=broker, backend=broker)
app.steps["consumer"].add(GlobalRateLimit)


@app.task(name="add", rate_limit="5/s")
def add(x: int, y: int) -> int:
    return x + y


for url, rate in (("http://h", "5/s"), ("http://h", "5/s"), (limits, "fast"), (limits, "5/s")):
    app.conf.global_rate_url, add.rate_limit = url, rate
    try:
        with start_worker(app):
            print(add.delay(1, 2).get(timeout=10))
    except SystemExit:
        print("refused")
