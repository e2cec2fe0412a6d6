"""One line in Redis for each start of a task: when, and in which process, which is the worker's for the solo pool."""

from __future__ import annotations

import os
import time

import redis

KEY = "starts"


def record() -> None:
    with redis.Redis.from_url(os.environ["FLEET_REDIS"]) as client:
        client.rpush(KEY, f"{time.monotonic():.6f} {os.getpid()}")
