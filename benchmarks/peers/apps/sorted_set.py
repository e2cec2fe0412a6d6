"""The counter that teams write next: a sorted set with the starts of the last second, in one transaction."""

import random
import time
import uuid
from typing import Any

from lab import LIMITER, app, work
from redis import Redis

starts = Redis.from_url(LIMITER)


@app.task(name="lab.limited", bind=True, max_retries=None)
def limited(self: Any, number: int) -> None:
    now, member = time.time(), uuid.uuid4().hex
    with starts.pipeline() as pipeline:
        pipeline.zremrangebyscore("limited", 0, now - 1)
        pipeline.zadd("limited", {member: now})
        pipeline.zcard("limited")
        pipeline.expire("limited", 2)
        _, _, count, _ = pipeline.execute()
    if count > 100:
        starts.zrem("limited", member)
        raise self.retry(countdown=random.uniform(0.5, 1.5))
    work(number)
