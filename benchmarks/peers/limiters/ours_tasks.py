"""Here, for tasks of asyncio."""

import os

from celery_global_rate import AsyncRateLimiter

limiter = AsyncRateLimiter(os.environ["PEERS_LIMITER"], "api", rate="100/s", prefix="peers:")


async def acquire() -> None:
    await limiter.acquire()
