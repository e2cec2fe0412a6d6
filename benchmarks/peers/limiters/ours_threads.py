"""Here."""

import os

from celery_global_rate import RateLimiter

limiter = RateLimiter(os.environ["PEERS_LIMITER"], "api", rate="100/s", prefix="peers:")


def acquire() -> None:
    limiter.acquire()
