"""The package `throttled-py`, with GCRA, and a retry when it says that there is room."""

from typing import Any

from lab import LIMITER, app, work
from throttled import RateLimiterType, Throttled, rate_limiter, store

throttle = Throttled(
    using=RateLimiterType.GCRA.value,
    quota=rate_limiter.per_sec(100, burst=1),
    store=store.RedisStore(server=LIMITER),
)


@app.task(name="lab.limited", bind=True, max_retries=None)
def limited(self: Any, number: int) -> None:
    result = throttle.limit("limited")
    if result.limited:
        raise self.retry(countdown=result.state.retry_after)
    work(number)
