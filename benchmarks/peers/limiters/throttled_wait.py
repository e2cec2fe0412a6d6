"""`throttled-py`: GCRA with a second's worth of burst, and its own pauses, as its documentation has it."""

import os

from throttled import RateLimiterType, Throttled, rate_limiter, store

throttle = Throttled(
    key="api",
    using=RateLimiterType.GCRA.value,
    quota=rate_limiter.per_sec(100, burst=100),
    store=store.RedisStore(server=os.environ["PEERS_LIMITER"]),
    timeout=1,
)


def acquire() -> None:
    while throttle.limit().limited:
        pass
