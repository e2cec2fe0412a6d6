"""The node of a Redis Cluster that has our keys, looked up for each connection."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import AskError, ClusterDownError, ConnectionError, MovedError, RedisError, TryAgainError

from .redis_url import CLUSTER_TLS, hosts, scheme, without_hosts

PORT = 6379
#: Knows MOVED and its like; from redis-py 6 on, every parser does.
PARSER = getattr(redis.cluster, "ClusterParser", None)


class SlotLostError(ConnectionError):
    """The node does not serve our keys any more: they have moved, or their slot has no master now."""


class _Owner:
    """Asks where the keys are whenever it connects; the rest is redis-py's connection.

    Not redis-py's client for a Cluster, which waits for each answer, and first reads all slots and all commands from
    one node. All our keys are in one slot, so a node that does not have them names the one that does in its reply. That
    one is asked as well: a node that was cut off may have outdated information. Nodes are asked in random order: one
    that hangs is seldom the first.
    """

    host: str
    port: int

    def __init__(self, nodes: Sequence[tuple[str, int]], key: str, **options: Any) -> None:
        super().__init__(**options)
        self._nodes = nodes
        self._key = key

    def connect(self) -> None:
        connection: Any = self
        reason: Exception = ConnectionError("no node of the Cluster was named")
        left, asked = deque(random.sample(self._nodes, len(self._nodes))), set()
        while left:
            node = left.popleft()
            if node in asked:
                continue
            asked.add(node)
            self.host, self.port = node
            try:
                super().connect()  # type: ignore[misc]  # of the class beside this one
                connection.send_command("HMGET", self._key, "id")
                super().read_response()  # type: ignore[misc]
                return
            except MovedError as moved:
                reason = moved
                left.appendleft((moved.host or self.host, moved.port))
            except AskError:  # they are being moved to another node, and until that is done they are here
                return
            except (RedisError, OSError) as exc:
                reason = exc
            connection.disconnect()
        raise reason

    def read_response(self, *args: Any, **options: Any) -> Any:
        """As redis-py does. If the keys have moved, the connection is lost: callers reconnect, and know no Cluster."""
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        except (MovedError, ClusterDownError):
            raise SlotLostError("another node has the keys, or none") from None
        except AskError:
            # The other node takes a command with several keys only when it has them all: when the slot has moved.
            raise TryAgainError("the slot of the keys is moving to another node") from None


class OwnerConnection(_Owner, redis.Connection):
    """To the node that has the keys."""


class OwnerTLSConnection(_Owner, redis.SSLConnection):
    """To the node that has the keys, by TLS."""


def owner(urls: str, key: str, ssl: bool = False, **options: Any) -> Any:
    """A connection to the node that has a key, not open yet; `connect` blocks, and finds it.

    User, password and parameters may stand in any of the URLs; the first counts.

    Args:
        urls: of nodes, with `;` between them: those that are asked.
        key: any one of the keys.
        ssl: whether the nodes take TLS, though the URLs do not say so.
        options: arguments of redis-py.

    Raises:
        TypeError, ValueError, redis.RedisError: redis-py does not accept a URL or an option.
    """
    if PARSER:
        options.setdefault("parser_class", PARSER)
    return redis.Redis.from_url(
        without_hosts(urls),
        connection_class=OwnerTLSConnection if ssl or scheme(urls) == CLUSTER_TLS else OwnerConnection,
        nodes=hosts(urls, PORT),
        key=key,
        **options,
    ).connection_pool.make_connection()
