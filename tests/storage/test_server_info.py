"""What a Redis says of itself, and what a worker logs of it: real servers, and the answers of others as they came."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from redis.exceptions import BusyLoadingError, ConnectionError, NoPermissionError, ReadOnlyError, ResponseError

from celery_global_rate.storage.outage import Outage
from celery_global_rate.storage.outage_policies import Hold
from celery_global_rate.storage.server_info import Server
from testbed.server import Redis

from ..conftest import Server as AnyRedis
from .wire import Wire

ADDRESS = "redis://h:6379/0"


def info(*lines: str) -> bytes:
    """An answer to `INFO`, with the headings and empty lines that servers send."""
    return "\r\n".join(["# Server", *lines, "", "# Keyspace", "db0:keys=1,expires=0", ""]).encode()


@pytest.mark.parametrize(
    ("lines", "software", "warned"),
    [
        (["redis_version:7.0.15", "maxmemory_policy:noeviction", "role:master"], "Redis 7.0.15", []),
        (["redis_version:6.2.0"], "Redis 6.2.0", []),
        (["redis_version:6.0.16"], "Redis 6.0.16", ["is too old (Redis 6.0.16): use Redis 6.2 or newer"]),
        (["redis_version:5.0.7", "role:slave"], "Redis 5.0.7", ["is a replica", "is too old"]),
        (["redis_version:10.1-rc1"], "Redis 10.1-rc1", []),
        (["redis_version:7.2.4", "server_name:valkey", "valkey_version:9.0.1"], "Valkey 9.0.1", []),
        (["redis_version:unstable"], "Redis unstable", []),
        (["maxmemory_policy:allkeys-lru"], "", ["may evict keys (maxmemory-policy allkeys-lru)"]),
        (["maxmemory_policy:volatile-ttl"], "", ["may evict keys (maxmemory-policy volatile-ttl)"]),
        (["role:master", "loading:1"], "", ["is loading"]),
        ([], "", []),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) and value else None,
)
def test_what_a_server_says(lines: list[str], software: str, warned: list[str]) -> None:
    server = Server.parse(info(*lines))

    assert server.software == software
    assert len(server.warnings) == len(warned)
    assert all(found.startswith(words) for found, words in zip(server.warnings, warned))
    assert server == Server.parse(info(*lines).decode())  # `decode_responses` in the options for redis-py


@pytest.mark.parametrize("reply", [NoPermissionError("no INFO"), b"", "", None, 7, [b"x"], b"\xff:\xff\r\nx"])
def test_what_tells_nothing_is_no_error(reply: object) -> None:
    server = Server.parse(reply)

    assert (server, server.warnings, server.keeps_limits) == (Server(), [], True)
    assert str(server) == "version unknown, role unknown, eviction policy unknown"


def test_a_real_server(redis_server: AnyRedis) -> None:
    with Wire(f"{redis_server.url}/9") as wire:
        wire.open()
        server = Server.parse(wire.ask("INFO"))

    assert server.level >= (6, 2)
    assert server.role == "master"
    assert server.run_id == redis_server.client().info()["run_id"]
    assert str(server).endswith(", master, noeviction")
    assert not server.warnings


@pytest.fixture
def second_redis(own_redis: Redis) -> Iterator[Redis]:
    """One more."""
    server = Redis().start()
    yield server
    server.close()


def test_a_replica_and_a_server_that_evicts(own_redis: Redis, second_redis: Redis) -> None:
    own_redis.client().config_set("maxmemory-policy", "allkeys-lru")
    own_redis.client().replicaof("127.0.0.1", second_redis.port)
    with Wire(own_redis.url) as wire:
        wire.open()
        server = Server.parse(wire.ask("INFO"))

    assert str(server).endswith(", replica, allkeys-lru")
    assert not server.keeps_limits
    assert [warning.partition(",")[0].partition(" (")[0] for warning in server.warnings] == [
        "is a replica",
        "may evict keys",
    ]


def test_an_acl_that_refuses_to_tell(own_redis: Redis) -> None:
    own_redis.client().acl_setuser("app", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-info"])
    with Wire(own_redis.url.replace("//", "//app:pw@")) as wire:
        wire.open()
        refused = wire.ask("INFO")

    assert isinstance(refused, NoPermissionError)
    assert Server.parse(refused) == Server()


class TestOutage:
    """What is logged of it, once for each time it changes."""

    @pytest.fixture(autouse=True)
    def _log(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self.log, self.outage = caplog, Outage(ADDRESS, Hold(), lambda: None)

    @property
    def said(self) -> list[str]:
        said = [record.getMessage().partition("global-rate: ")[2] for record in self.log.records]
        self.log.clear()
        return said

    def test_warnings_come_with_each_new_server_and_not_again(self) -> None:
        evicting = ["maxmemory_policy:allkeys-lru", "role:master"]
        for run_id, warnings in (("a", 1), ("a", 0), ("b", 1), ("b", 0)):
            self.outage.introduced(info(f"run_id:{run_id}", *evicting))

            assert [f"the Redis at {ADDRESS} may evict"] * warnings == [
                said.partition(" keys")[0] for said in self.said
            ]
        assert self.outage.server.run_id == "b"

    def test_a_server_that_tells_who_it_is_answers_again(self) -> None:
        """A worker that holds nothing asks for no slots, and would not notice."""
        self.outage.connected(ConnectionError("secret"))
        assert self.outage.reason == "ConnectionError"
        self.outage.introduced(ConnectionError("secret"))
        assert self.outage.reason
        self.outage.introduced(info("role:master"))
        assert self.outage.reason is None
        assert self.said == [f"no answer from {ADDRESS} (ConnectionError) for 0.0 s"]

    @pytest.mark.parametrize("state", ["loading:1", "role:slave"])
    def test_one_that_cannot_give_slots_does_not(self, state: str) -> None:
        """Otherwise a Redis that loads its data, asked and lost repeatedly, would never be an outage."""
        self.outage.connected(BusyLoadingError())
        self.outage.introduced(info(state))
        assert self.outage.reason == "BusyLoadingError"
        self.outage.introduced(info("role:master"))
        assert self.outage.reason is None

    @pytest.mark.parametrize("refusal", [NoPermissionError("NOPERM"), ResponseError("unknown command 'INFO'")])
    def test_so_does_one_that_refuses_to_tell(self, refusal: ResponseError) -> None:
        self.outage.connected(ConnectionError())
        self.outage.introduced(refusal)
        assert self.outage.reason is None

    @pytest.mark.parametrize("refusal", [ReadOnlyError("READONLY"), ResponseError("OOM")])
    def test_one_that_refused_slots_answers_again_with_slots_only(self, refusal: ResponseError) -> None:
        """Else a read-only replica, left and found again all the time, would be as many lines."""
        self.outage.replied("a", refusal)
        self.outage.connected(refusal)
        self.outage.connected(None)
        self.outage.introduced(info("role:master"))
        assert self.outage.reason
        assert not self.said
        self.outage.replied("a", [1, 2, 3])
        assert self.outage.reason is None
        self.outage.connected(ConnectionError())
        self.outage.introduced(info("role:master"))
        assert self.outage.reason is None


def test_run_ids_differ(redis_server: AnyRedis, own_redis: Redis) -> None:
    """`check` distinguishes servers by it; a restart gives another."""

    ids = {redis_server.client().info()["run_id"], own_redis.client().info()["run_id"]}
    own_redis.restart()
    ids.add(own_redis.client().info()["run_id"])

    assert len(ids) == 3
