"""Where the limits are kept, and how that Redis is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from .cluster import owner
from .redis_url import CLUSTERS, SENTINEL, redacted, scheme
from .scripts import era_key
from .sentinel import master

#: For connecting and for the handshake, in seconds. A thread does both, never the event loop.
CONNECT_TIMEOUT_S = 1.0
TIMEOUTS = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": CONNECT_TIMEOUT_S}
#: The same for each node of a Cluster: a master that hangs must not keep us from the one that replaces it.
NODE_TIMEOUT_S = 0.5
NODE_TIMEOUTS = {"socket_connect_timeout": NODE_TIMEOUT_S, "socket_timeout": NODE_TIMEOUT_S}

#: Options of redis-py that cannot be changed: RESP3 would push messages between the answers, and the answers of scripts
#: are read as bytes.
FORCED = {"protocol": 2, "decode_responses": False, "encoding": "utf-8", "encoding_errors": "strict"}


@dataclass(frozen=True)
class Location:
    """A Redis, and the prefix of our keys in it.

    Attributes:
        url: the Redis, the Sentinels that know it, or nodes of its Cluster, in redis-py's spelling. Not in the repr,
            because it may hold a password.
        redis_options: passed to redis-py.
        key_prefix: the prefix of all keys; apps that share it share buckets.
    """

    url: str = field(repr=False)
    redis_options: Mapping[str, Any] = field(repr=False)
    key_prefix: str

    @property
    def address(self) -> str:
        """The Redis as logs may show it: without user, password and options."""
        return redacted(self.url)

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self.connection().db or 0)

    def connection(self) -> Any:
        """A connection of redis-py to this Redis, not open yet. With Sentinel, `connect` finds the
        master, and in a Cluster the node that has our keys.

        Raises:
            TypeError, ValueError, redis.RedisError: redis-py does not accept the URL or an option. The settings of an
                application have been tried before.
        """
        kind = scheme(self.url)
        options = {**(NODE_TIMEOUTS if kind in CLUSTERS else TIMEOUTS), **self.redis_options, **FORCED}
        if kind == SENTINEL:
            return master(self.url, TIMEOUTS, **options)
        if kind in CLUSTERS:
            return owner(self.url, era_key(self.key_prefix), **options)
        url = self.url.replace("redis://", "rediss://", 1) if options.pop("ssl", False) else self.url
        return redis.Redis.from_url(url, **options).connection_pool.make_connection()
