"""`limits`: its moving window, and a pause until the oldest start has left it, as its documentation does."""

import os
import time

from limits import parse
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter

limiter = MovingWindowRateLimiter(RedisStorage(os.environ["PEERS_LIMITER"]))
rate = parse("100/second")


def acquire() -> None:
    while not limiter.hit(rate, "api"):
        window = limiter.get_window_stats(rate, "api")
        time.sleep(max(0.0, window.reset_time - time.time()))
