"""A Redis Cluster of our own for a run: real nodes on loopback, whose slots move and whose masters die."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from typing import Any

import redis
from redis.crc import key_slot

from .meanwhile import wait
from .server import Redis

SLOTS = 16384
#: Its bus listens this far above a node's port.
BUS = 10000
PORTS = range(11000, 21000)
#: A node that is silent for this long is given up, in milliseconds.
NODE_TIMEOUT_MS = 1000
#: Slots, votes and replicas need a moment each.
FORMED_S = 30.0


def free_pairs(count: int) -> list[int]:
    """Ports that nobody listens on, nor on those of their buses. Below those that the system hands out by itself."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + BUS))
            if port not in found:
                found.append(port)
    return found


class Node(Redis):
    """A server that can be one of a cluster."""

    def __init__(self, port: int) -> None:
        super().__init__(
            port,
            [
                *("--cluster-enabled", "yes"),
                *("--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
                *("--repl-diskless-sync-delay", "0"),
            ],
        )
        self.id = ""

    def command(self, *words: object) -> Any:
        """Send a command to this node itself."""
        with redis.Redis(port=self.port, socket_timeout=2, decode_responses=True) as client:
            return client.execute_command(*words)


class RedisCluster:
    """Masters that share the slots evenly, and a replica for each.

    Args:
        masters: how many.

    Attributes:
        nodes: the masters first, each one's replica as far behind it as there are masters.
    """

    def __init__(self, masters: int = 3) -> None:
        self.nodes = [Node(port) for port in free_pairs(2 * masters)]
        self._masters = masters

    def start(self) -> RedisCluster:
        for node in self.nodes:
            node.start()
            node.id = node.command("CLUSTER", "MYID")
        first = self.nodes[0]
        for node in self.nodes[1:]:
            node.command("CLUSTER", "MEET", "127.0.0.1", first.port)
        share = -(-SLOTS // self._masters)
        for index, master in enumerate(self.nodes[: self._masters]):
            master.command("CLUSTER", "ADDSLOTS", *range(index * share, min((index + 1) * share, SLOTS)))
        wait(lambda: all(len(self._known(node)) == len(self.nodes) for node in self.nodes), FORMED_S, lambda: "not met")
        for master, replica in zip(self.nodes, self.nodes[self._masters :]):
            replica.command("CLUSTER", "REPLICATE", master.id)
        wait(self._is_whole, FORMED_S, lambda: "not formed")
        return self

    @staticmethod
    def _known(node: Node) -> list[str]:
        return [line for line in node.command("CLUSTER", "NODES").splitlines() if "handshake" not in line]

    def _is_whole(self) -> bool:
        replicas = self.nodes[self._masters :]
        return all("cluster_state:ok" in node.command("CLUSTER", "INFO") for node in self.nodes) and all(
            self.follows(replica, master.port) for master, replica in zip(self.nodes, replicas)
        )

    @staticmethod
    def follows(replica: Node, port: int) -> bool:
        """Whether a replica hears of each write from the master at this port."""
        replication = replica.command("INFO", "replication")
        return bool(replication.get("master_link_status") == "up" and replication.get("master_port") == port)

    @property
    def url(self) -> str:
        """All nodes, as the setting takes them."""
        return ";".join(f"redis+cluster://127.0.0.1:{node.port}" for node in self.nodes)

    def owner(self, key: str) -> Node:
        """The node that takes writes of a key now.

        Raises:
            LookupError: there is none.
        """
        for node in self.nodes:
            if node.process is not None and takes_writes(node, key):
                return node
        raise LookupError(f"no node takes writes of {key}")

    def replica(self, master: Node) -> Node:
        """The one that the cluster was formed with, or the master of one that has taken its place."""
        return self.nodes[(self.nodes.index(master) + self._masters) % len(self.nodes)]

    def begin_move(self, key: str, target: Node) -> Node:
        """Begin to move the slot of a key, as `redis-cli --cluster reshard` does; returns where it comes from."""
        source, slot = self.owner(key), key_slot(key.encode())
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        return source

    def move_keys(self, key: str, source: Node, target: Node) -> int:
        """Move all keys that are in the slot of this one now; returns how many."""
        keys = source.command("CLUSTER", "GETKEYSINSLOT", key_slot(key.encode()), 1000)
        for name in keys:
            source.command("MIGRATE", "127.0.0.1", target.port, name, 0, 1000)
        return len(keys)

    def end_move(self, key: str, source: Node, target: Node) -> None:
        """Give the slot to its new node."""
        for node in (target, source):
            node.command("CLUSTER", "SETSLOT", key_slot(key.encode()), "NODE", target.id)

    def close(self) -> None:
        for node in self.nodes:
            node.close()


def takes_writes(node: Node, key: str) -> bool:
    """Whether a node takes writes of a key now."""
    with contextlib.suppress(redis.RedisError, OSError):
        return bool(node.command("SET", key, "1", "PX", 60000))
    return False


class Watch:
    """Sees when another node takes writes of a key, by asking them all the time in its own thread.

    Args:
        nodes: those that may.
        key: it is written.
    """

    def __init__(self, nodes: list[Node], key: str) -> None:
        self._nodes = nodes
        self._key = key
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: float | None = None
        self._thread.start()

    def _look(self) -> None:
        deadline = time.monotonic() + FORMED_S
        while self.seen is None and time.monotonic() < deadline:
            if any(takes_writes(node, self._key) for node in self._nodes):
                self.seen = time.monotonic()
            time.sleep(0.005)

    def wait(self) -> float:
        """The monotonic instant at which one did."""
        self._thread.join()
        assert self.seen is not None, "no other node takes writes"
        return self.seen
