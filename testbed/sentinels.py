"""A master with a replica and a Sentinel for a run, all of them real and with passwords."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisError

from .meanwhile import wait
from .server import Redis, free_port, redis_binary

SECRET = "s3cret"
SENTINEL_SECRET = "sentinel-s3cret"
SERVICE = "shop"
#: The Sentinel gives up a master that is silent for so long, in milliseconds. One that has just restarted is silent
#: for up to a second: the Sentinel connects once a second.
DOWN_AFTER_MS = 1500
#: A failover that does not succeed is tried again after twice this time, in milliseconds.
RETRY_MS = 2000
#: All that is waited for takes less, in seconds.
FAILOVER_S = 30
#: A server that takes longer is not there, in seconds.
ANSWER_S = 0.1
#: Each server's password, for the other one, too. A replica may follow at once.
OPTIONS = ("--requirepass", SECRET, "--masterauth", SECRET, "--repl-diskless-sync-delay", "0")


class Sentinels:
    """A master with its replica, a Sentinel, and a port on which a Sentinel no longer listens."""

    def __init__(self) -> None:
        self.servers = [Redis(options=OPTIONS, password=SECRET) for _ in range(2)]
        self.port, self.dead_port = free_port(), free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="global-rate-sentinel-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Sentinels:
        binary = redis_binary()
        if binary is None:
            raise RuntimeError("no Redis to run")
        for server in self.servers:
            server.start()
        master, replica = self.servers
        replica.client().replicaof("127.0.0.1", master.port)
        conf = self._directory / "sentinel.conf"
        conf.write_text(
            f"port {self.port}\nbind 127.0.0.1\nrequirepass {SENTINEL_SECRET}\ndir {self._directory}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 1\n"
            f"sentinel auth-pass {SERVICE} {SECRET}\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} {RETRY_MS}\n"
        )
        self._process = subprocess.Popen(
            [binary, str(conf), "--sentinel"], stdout=subprocess.DEVNULL, start_new_session=True
        )
        self.wait_until_whole()
        return self

    def wait_until_whole(self) -> None:
        """Until the master has a replica that knows all it knows, and the Sentinel knows of both."""
        wait(self._is_whole, FAILOVER_S, lambda: "the Sentinel does not know the replica")

    def _is_whole(self) -> bool:
        with contextlib.suppress(RedisError), self.sentinel() as sentinel:
            master, replicas = self.master(), sentinel.sentinel_slaves(SERVICE)
            if master is not None and not any(its["is_disconnected"] or its["is_sdown"] for its in replicas):
                replication = self._other(master).client(timeout_s=ANSWER_S).info("replication")
                return len(replicas) == 1 and replication.get("master_link_status") == "up"
        return False

    def _other(self, server: Redis) -> Redis:
        (other,) = (it for it in self.servers if it is not server)
        return other

    def sentinel(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=SENTINEL_SECRET)

    def master(self) -> Redis | None:
        """The server that the Sentinel names; None if it takes no writes now."""
        with contextlib.suppress(RedisError), self.sentinel() as sentinel:
            _, port = sentinel.sentinel_get_master_addr_by_name(SERVICE)
            (server,) = [server for server in self.servers if server.port == port]
            server.client(timeout_s=ANSWER_S).set("a write", "taken")
            return server
        return None

    def wait_for_master(self, *others: Redis) -> Redis:
        """Wait until there is a master, and another one than these; returns it."""
        found: list[Redis | None] = []

        def is_found() -> bool:
            found.append(self.master())
            return found[-1] not in (None, *others)

        wait(is_found, FAILOVER_S, lambda: "no new master")
        assert found[-1] is not None
        return found[-1]

    def mend(self) -> None:
        """Let a server that was killed or stopped follow the master that is now there."""
        master = self.wait_for_master()
        other = self._other(master)
        if other.process is None:
            other.start()
        other.resume()
        other.client().replicaof("127.0.0.1", master.port)
        self.wait_until_whole()

    @property
    def url(self) -> str:
        """As the setting of the limits takes it."""
        return f"{self.broker_url}?service_name={SERVICE}"

    @property
    def broker_url(self) -> str:
        """As Celery's documentation writes it. The first Sentinel does not answer."""
        return f"sentinel://:{SECRET}@127.0.0.1:{self.dead_port}/1;sentinel://:{SECRET}@127.0.0.1:{self.port}/1"

    @property
    def options(self) -> dict[str, Any]:
        """How to connect to a Sentinel."""
        return {"password": SENTINEL_SECRET}

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        for server in self.servers:
            server.close()
        shutil.rmtree(self._directory, ignore_errors=True)
