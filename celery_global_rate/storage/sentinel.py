"""The master that Sentinels know, looked up for each connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from .redis_url import hosts, without_hosts

PORT = 26379


class _Master:
    """Asks where the master is whenever it connects; the rest is redis-py's connection.

    Not redis-py's own class for this: that one closes the socket itself on a read-only reply, while the event loop
    still listens to it, and keeps its connections to the Sentinels open.
    """

    def __init__(self, sentinel: Any, service_name: str, **options: Any) -> None:
        super().__init__(**options)
        self._sentinel = sentinel
        self._service_name = service_name

    def connect(self) -> None:
        try:
            self.host, self.port = self._sentinel.discover_master(self._service_name)
        except MasterNotFoundError:
            # The text of the error may quote the options for the Sentinels, and with them a password.
            raise MasterNotFoundError(f"no Sentinel knows a master {self._service_name!r} that is up") from None
        finally:
            for client in self._sentinel.sentinels:
                client.connection_pool.disconnect()  # as close() does from redis-py 5.0.1 on
        super().connect()  # type: ignore[misc]  # of the class beside this one


class MasterConnection(_Master, redis.Connection):
    """To the master."""


class MasterTLSConnection(_Master, redis.SSLConnection):
    """To the master, by TLS."""


def master(
    urls: str,
    timeouts: Mapping[str, float],
    sentinel_kwargs: Any = None,
    min_other_sentinels: int = 0,
    ssl: bool = False,
    **options: Any,
) -> Any:
    """A connection to the master, not open yet; `connect` blocks, and finds it.

    User, password, database and parameters are the master's, and may stand in any of the URLs; the first counts.

    Args:
        urls: of the Sentinels, with `;` between them, and what they call the master as the parameter `service_name`.
        timeouts: for the Sentinels, if `sentinel_kwargs` has none.
        sentinel_kwargs: arguments of redis-py for connections to the Sentinels.
        min_other_sentinels: a Sentinel that knows fewer others is ignored.
        ssl: whether the master takes TLS.
        options: arguments of redis-py for the connection to the master.

    Raises:
        TypeError, ValueError, redis.RedisError: redis-py does not accept a URL or an option.
    """
    # Retrying is up to the caller, and without it the next Sentinel is asked sooner.
    once = {**timeouts, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
    sentinel = Sentinel(
        hosts(urls, PORT),
        min_other_sentinels=min_other_sentinels,
        sentinel_kwargs={**once, **(sentinel_kwargs or {})},
    )
    return redis.Redis.from_url(
        without_hosts(urls),
        connection_class=MasterTLSConnection if ssl else MasterConnection,
        sentinel=sentinel,
        **options,
    ).connection_pool.make_connection()
