"""`pyrate-limiter`: GCRA, of which its documentation says that `burst=1` is perfectly smooth.

`buffer_ms` is slack for clocks that differ, and those of one machine do not.
"""

import os

from pyrate_limiter import Duration, Limiter, Rate, RedisStateStore, StateBucket
from redis import Redis

store = RedisStateStore(Redis.from_url(os.environ["PEERS_LIMITER"]), "bucket")
limiter = Limiter(StateBucket([Rate(100, Duration.SECOND, burst=1)], store=store), buffer_ms=0)


def acquire() -> None:
    limiter.try_acquire("api")
