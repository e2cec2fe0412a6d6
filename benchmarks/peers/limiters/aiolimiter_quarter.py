"""`aiolimiter`, which shares nothing between processes: each of the four has a quarter, evenly spaced."""

from aiolimiter import AsyncLimiter

limiter = AsyncLimiter(1, 4 / 100)


async def acquire() -> None:
    await limiter.acquire()
