"""The counter that every team writes first: INCR a key of this second, and try again later."""

import time
from typing import Any

from lab import LIMITER, app, work
from redis import Redis

counters = Redis.from_url(LIMITER)


@app.task(name="lab.limited", bind=True, max_retries=None)
def limited(self: Any, number: int) -> None:
    key = f"limited:{int(time.time())}"
    count = counters.incr(key)
    if count == 1:
        counters.expire(key, 2)
    if int(count) > 100:
        raise self.retry(countdown=1)
    work(number)
