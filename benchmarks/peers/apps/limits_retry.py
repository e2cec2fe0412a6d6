"""The package `limits`, with its moving window, and a retry when the oldest start has left it."""

import time
from typing import Any

from lab import LIMITER, app, work
from limits import parse
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter

limiter = MovingWindowRateLimiter(RedisStorage(LIMITER))
rate = parse("100/second")


@app.task(name="lab.limited", bind=True, max_retries=None)
def limited(self: Any, number: int) -> None:
    if not limiter.hit(rate, "limited"):
        reset_time, _ = limiter.get_window_stats(rate, "limited")
        raise self.retry(countdown=max(0.1, reset_time - time.time()))
    work(number)
