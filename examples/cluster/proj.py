"""An ordinary Celery application: nothing in here refers to celery-global-rate."""

from __future__ import annotations

import os

import redis
from celery import Celery, Task

app = Celery("proj", broker=os.environ["BROKER_URL"], backend=os.environ["RESULT_URL"])
app.conf.task_ignore_result = True

#: Where tasks leave their starts, for the producer to read. Redis stamps each with its own clock, in milliseconds.
CALLS, LOOK_UPS = "starts", "look-ups"
starts = redis.Redis.from_url(os.environ["RESULT_URL"], decode_responses=True)


@app.task(bind=True, rate_limit="10/s")
def call_api(self: Task) -> None:
    """Stands for a request to an API that blocks clients that send more than ten a second."""
    starts.xadd(CALLS, {"worker": self.request.hostname}, maxlen=10_000)


@app.task
def look_up(sent_ms: int) -> None:
    """Has no limit: it does not wait for the calls in front of it in the same queue."""
    starts.xadd(LOOK_UPS, {"sent_ms": sent_ms}, maxlen=10_000)
