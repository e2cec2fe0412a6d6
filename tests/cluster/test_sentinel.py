"""A master that Sentinels know: real Sentinels, a real failover."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from redis.exceptions import AuthenticationError
from redis.sentinel import MasterNotFoundError

from celery_global_rate.settings import Settings
from celery_global_rate.storage.location import CONNECT_TIMEOUT_S
from testbed.cluster import Cluster
from testbed.meanwhile import wait
from testbed.sentinels import FAILOVER_S, SECRET, SENTINEL_SECRET, Sentinels
from testbed.server import redis_binary
from testbed.windows import excess, used

from ..conftest import Figures, Server
from ..read_back import written_by_kombu


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    if redis_binary() is None:
        pytest.skip("no Redis to run")
    with contextlib.closing(Sentinels()) as sentinels:
        yield sentinels.start()


def settings(**conf: Any) -> Settings:
    app = Celery("proj", set_as_current=False)
    app.conf.update(conf)
    return Settings.from_app(app)


def inherited(sentinels: Sentinels) -> Settings:
    options = {"master_name": "shop", "sentinel_kwargs": sentinels.options, "visibility_timeout": 3600}
    return settings(broker_url=sentinels.broker_url, broker_transport_options=options)


def of_the_result_backend(sentinels: Sentinels) -> Settings:
    options = {"master_name": "shop", "sentinel_kwargs": sentinels.options, "retry_policy": {"timeout": 5.0}}
    return settings(broker_url="amqp://", result_backend=sentinels.broker_url, result_backend_transport_options=options)


def explicit(sentinels: Sentinels) -> Settings:
    url = f"sentinel://127.0.0.1:{sentinels.dead_port};sentinel://127.0.0.1:{sentinels.port}/1"
    options = {"service_name": "shop", "password": SECRET, "sentinel_kwargs": sentinels.options}
    return settings(global_rate_url=url, global_rate_redis_options=options)


def in_the_url(sentinels: Sentinels) -> Settings:
    options = {"sentinel_kwargs": sentinels.options}
    return settings(global_rate_url=f"{sentinels.broker_url}?service_name=shop", global_rate_redis_options=options)


def port_of_master(settings: Settings) -> int | None:
    """Where a new connection leads, and that it takes writes; None if no master is known now."""
    connection = settings.connection()
    try:
        connection.connect()
        connection.send_command("SET", "key", "value")
        assert connection.read_response() in (b"OK", "OK")
        return int(connection._sock.getpeername()[1])
    except (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError):
        return None
    finally:
        connection.disconnect()


@pytest.mark.parametrize("make", [inherited, of_the_result_backend, explicit, in_the_url])
def test_a_connection_leads_to_the_master(sentinels: Sentinels, make: Callable[[Sentinels], Settings]) -> None:
    """With passwords for the master and for the Sentinels, past a Sentinel that is gone, into the right database.

    Nothing is opened before `connect`, and the connection to the Sentinel does not stay open.
    """
    made = make(sentinels)
    with redis.Redis(port=sentinels.port, password=SENTINEL_SECRET) as asking:
        before = asking.info("clients")["connected_clients"]
        connection = made.connection()
        assert connection._sock is None
        connection.connect()
        wait(
            lambda: asking.info("clients")["connected_clients"] == before, 5, lambda: "still connected to the Sentinel"
        )
    connection.send_command("CLIENT", "INFO")
    (info,) = [connection.read_response().decode()]
    connection.disconnect()

    assert connection.port == sentinels.servers[0].port
    assert " db=1 " in info
    assert int(connection.protocol) == 2
    assert (connection.socket_timeout, connection.socket_connect_timeout) == (CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S)
    assert made.address == (
        f"sentinel://127.0.0.1:{sentinels.dead_port}{'' if make is explicit else '/1'};"
        f"sentinel://127.0.0.1:{sentinels.port}/1?service_name=shop"
    )
    assert SECRET not in repr(made)


def test_limits_are_where_celery_has_its_broker(sentinels: Sentinels) -> None:
    """The same master and the same database: what kombu writes there, a connection of ours reads."""
    app = Celery("proj", broker=f"sentinel://:{SECRET}@127.0.0.1:{sentinels.port}/1", set_as_current=False)
    app.conf.broker_transport_options = {"master_name": "shop", "sentinel_kwargs": sentinels.options}

    assert written_by_kombu(app) == b"kombu"


def test_after_a_failover_a_new_connection_leads_to_the_new_master(sentinels: Sentinels) -> None:
    """Of one settings object, which the worker keeps for as long as it lives."""
    kept = inherited(sentinels)
    old, new = (server.port for server in sentinels.servers)
    assert port_of_master(kept) == old
    sentinels.servers[0].stop()
    wait(lambda: port_of_master(kept) == new, FAILOVER_S, lambda: "no new master")


def test_a_master_that_nobody_knows_is_reported_without_a_password(sentinels: Sentinels) -> None:
    options = {"service_name": "other", "sentinel_kwargs": sentinels.options}
    connection = settings(global_rate_url=sentinels.broker_url, global_rate_redis_options=options).connection()
    with pytest.raises(MasterNotFoundError, match="no Sentinel knows a master 'other'") as unknown:
        connection.connect()

    assert SECRET not in str(unknown.value)
    assert unknown.value.__cause__ is None


def test_a_wrong_password_of_the_sentinel_or_of_the_master_is_reported(sentinels: Sentinels) -> None:
    wrong = {"sentinel_kwargs": {"password": "wrong"}}
    with pytest.raises(MasterNotFoundError):
        settings(
            global_rate_url=f"{sentinels.broker_url}?service_name=shop", global_rate_redis_options=wrong
        ).connection().connect()
    url = f"sentinel://:wrong@127.0.0.1:{sentinels.port}?service_name=shop"
    options = {"sentinel_kwargs": sentinels.options}
    with pytest.raises(AuthenticationError):
        settings(global_rate_url=url, global_rate_redis_options=options).connection().connect()


def test_a_failover_under_load(empty_redis: Server, sentinels: Sentinels, figures: Figures) -> None:
    """Two workers at 100/s, which hold without a master; it is killed, and they follow the Sentinel to the next one.

    A worker asks three times a second where the master is, so tasks start again within a second of the failover. The
    replica knew all slots but the last, or a full bucket at the worst: `b - 1 + H/T + 1` = 11 more.
    """
    url = sentinels.url
    options = {"sentinel_kwargs": sentinels.options}
    conf = {"global_rate_redis_options": options, "global_rate_on_outage": "hold"}
    kept = settings(global_rate_url=url, global_rate_redis_options=options)
    _, new = (server.port for server in sentinels.servers)
    with Cluster(f"{empty_redis.url}/0", url, "100/s", conf=conf, loglevel="INFO") as cluster:
        cluster.send("limited", 2500)
        cluster.start(2)
        cluster.wait_for(100, 10)
        killed = time.monotonic()
        sentinels.servers[0].stop()
        wait(lambda: port_of_master(kept) == new, FAILOVER_S, lambda: "no new master")
        settled = time.monotonic()
        cluster.wait(lambda: cluster.instants("start")[-1] > settled, 5)
        time.sleep(3)
        end = time.monotonic()
        time.sleep(0.2)
        releases = cluster.instants("release")
        log = cluster.log("w0")
    first = next(instant for instant in releases if instant > killed + 0.5)
    share = used(releases, 0.01, settled + 1, end)
    worst = excess(releases, 0.01, 1, 0.025 + 0.005)
    figures(
        f"Sentinel, master killed: the next one after {settled - killed:.2f} s, the first start "
        f"{first - settled:+.2f} s after that, from 1 s after it {share:.4f} of the slots used; worst {worst:+.2f}"
    )

    assert first - settled <= 1
    assert share >= 0.98
    assert worst <= 11
    assert "global-rate: Redis answers again after" in log
    assert SECRET not in log
