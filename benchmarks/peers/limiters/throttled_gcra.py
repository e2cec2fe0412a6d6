"""`throttled-py`: GCRA, evenly spaced, and a pause as long as its answer says (its own pauses take 0.2 s or more)."""

import os
import time

from throttled import RateLimiterType, Throttled, rate_limiter, store

throttle = Throttled(
    key="api",
    using=RateLimiterType.GCRA.value,
    quota=rate_limiter.per_sec(100, burst=1),
    store=store.RedisStore(server=os.environ["PEERS_LIMITER"]),
)


def acquire() -> None:
    while (result := throttle.limit()).limited:
        time.sleep(result.state.retry_after)
