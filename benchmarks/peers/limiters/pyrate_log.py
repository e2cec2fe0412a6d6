"""`pyrate-limiter`: the bucket that it has for several hosts, a sliding window, in which a caller waits by default."""

import os

from pyrate_limiter import Duration, Limiter, Rate, RedisBucket
from redis import ConnectionPool, Redis

redis = Redis(connection_pool=ConnectionPool.from_url(os.environ["PEERS_LIMITER"]))
limiter = Limiter(RedisBucket.init([Rate(100, Duration.SECOND)], redis, "bucket"))


def acquire() -> None:
    limiter.try_acquire("api")
