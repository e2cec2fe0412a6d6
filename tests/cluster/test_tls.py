"""A Redis behind TLS: a real server, real certificates, and what Celery's settings say of them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import ImproperlyConfigured

from celery_global_rate.settings import Settings
from testbed.cluster import Cluster
from testbed.meanwhile import wait
from testbed.redis_cluster import FORMED_S, RedisCluster
from testbed.server import redis_binary

from ..conftest import Server
from ..read_back import written_by_kombu

trustme = pytest.importorskip("trustme")


class Certificates:
    """An authority, what it has issued, and another authority that nobody here trusts."""

    def __init__(self, directory: Path) -> None:
        authority, other = trustme.CA(), trustme.CA()
        self.ca, self.other_ca = str(directory / "ca.pem"), str(directory / "other.pem")
        self.client = str(directory / "client.pem")
        authority.cert_pem.write_to_path(self.ca)
        other.cert_pem.write_to_path(self.other_ca)
        authority.issue_cert("client@lab").private_key_and_cert_chain_pem.write_to_path(self.client)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(self.context)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(self.context)


class TLS:
    """Takes TLS from clients that have a certificate of ours, and forwards what is in it to a Redis.

    Few builds of a Redis server have TLS compiled in, and a proxy in front is how many run it.
    """

    def __init__(self, redis_port: int, certificates: Certificates) -> None:
        self.ca, self.other_ca, self.client = certificates.ca, certificates.other_ca, certificates.client
        self._context, self._redis_port = certificates.context, redis_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError), raw:
            outside = self._context.wrap_socket(raw, server_side=True)
            with outside, socket.create_connection(("127.0.0.1", self._redis_port)) as inside:
                # One thread for both directions: an SSL socket is not for two.
                outside.settimeout(0.002)
                inside.settimeout(0.002)
                while all(self._forward(*pair) for pair in ((outside, inside), (inside, outside))):
                    pass

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket) -> bool:
        try:
            data = source.recv(65536)
        except socket.timeout:
            return True
        sink.sendall(data)
        return bool(data)

    def close(self) -> None:
        # A thread that waits in accept keeps the socket open.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def tls(redis_server: Server, certificates: Certificates) -> Iterator[TLS]:
    port = redis_server.client().connection_pool.connection_kwargs["port"]
    redis_server.client(9).flushdb()
    tls = TLS(port, certificates)
    yield tls
    tls.close()


def settings(**conf: Any) -> Settings:
    app = Celery("proj", set_as_current=False)
    app.conf.update({"broker_url": "amqp://", **conf})
    return Settings.from_app(app)


def options(tls: TLS) -> dict[str, Any]:
    """As Celery's documentation has them for a Redis broker."""
    files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.client, "ssl_keyfile": tls.client}
    return {**files, "ssl_cert_reqs": ssl.CERT_REQUIRED}


def conf_of_broker(tls: TLS) -> dict[str, Any]:
    return {"broker_url": f"rediss://localhost:{tls.port}/9", "broker_use_ssl": options(tls)}


def conf_of_broker_without_the_s(tls: TLS) -> dict[str, Any]:
    return {"broker_url": f"redis://localhost:{tls.port}/9", "broker_use_ssl": options(tls)}


def conf_of_broker_in_the_url(tls: TLS) -> dict[str, Any]:
    query = f"ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={tls.ca}&ssl_certfile={tls.client}&ssl_keyfile={tls.client}"
    return {"broker_url": f"rediss://localhost:{tls.port}/9?{query}"}


def conf_of_broker_in_the_url_without_the_s(tls: TLS) -> dict[str, Any]:
    return {"broker_url": conf_of_broker_in_the_url(tls)["broker_url"].replace("rediss", "redis")}


def conf_of_result_backend(tls: TLS) -> dict[str, Any]:
    return {
        "result_backend": f"rediss://localhost:{tls.port}/9",
        "redis_backend_use_ssl": {**options(tls), "ssl_cert_reqs": "CERT_REQUIRED"},
        "broker_use_ssl": {"ca_certs": "/of/rabbitmq.pem"},
    }


def conf_of_setting(tls: TLS) -> dict[str, Any]:
    own = {**options(tls), "ssl_cert_reqs": "required"}
    return {"global_rate_url": f"rediss://localhost:{tls.port}/9", "global_rate_redis_options": own}


def conf_of_cluster(tls: TLS) -> dict[str, Any]:
    return {**conf_of_setting(tls), "global_rate_url": f"rediss+cluster://localhost:{tls.port}"}


def conf_of_cluster_with_ssl(tls: TLS) -> dict[str, Any]:
    return {**conf_of_setting_with_ssl(tls), "global_rate_url": f"redis+cluster://localhost:{tls.port}"}


def conf_of_setting_with_ssl(tls: TLS) -> dict[str, Any]:
    own = {**options(tls), "ssl": True}
    return {"global_rate_url": f"redis://localhost:{tls.port}/9", "global_rate_redis_options": own}


def conf_of_both(tls: TLS) -> dict[str, Any]:
    """An option of ours goes before what is inherited."""
    wrong = {**options(tls), "ssl_ca_certs": tls.other_ca}
    own = {"ssl_ca_certs": tls.ca}
    return {**conf_of_broker(tls), "broker_use_ssl": wrong, "global_rate_redis_options": own}


BROKERS = [
    *(conf_of_broker, conf_of_broker_without_the_s),
    *(conf_of_broker_in_the_url, conf_of_broker_in_the_url_without_the_s),
]


@pytest.mark.parametrize(
    "conf",
    [
        *BROKERS,
        conf_of_result_backend,
        conf_of_setting,
        conf_of_setting_with_ssl,
        conf_of_cluster,
        conf_of_cluster_with_ssl,
        conf_of_both,
    ],
)
def test_a_connection_has_the_certificates_that_celery_has(tls: TLS, conf: Any) -> None:
    """The server takes no client without a certificate, and the client no server that the authority does not know."""
    connection = settings(**conf(tls)).connection()
    connection.connect()
    connection.send_command("PING")

    assert connection.read_response() in (b"PONG", True)
    assert isinstance(connection._sock, ssl.SSLSocket)
    assert connection.cert_reqs == ssl.CERT_REQUIRED
    connection.disconnect()


@pytest.mark.parametrize("conf", BROKERS)
def test_limits_are_where_celery_has_its_broker(tls: TLS, conf: Any) -> None:
    """What kombu writes there, a connection of ours reads."""
    app = Celery("proj", set_as_current=False)
    app.conf.update(conf(tls))

    assert written_by_kombu(app) == b"kombu"


@pytest.mark.parametrize(
    "conf", [conf_of_broker, conf_of_result_backend, conf_of_setting], ids=["broker", "result backend", "setting"]
)
def test_a_server_that_the_authority_does_not_know_is_refused(tls: TLS, conf: Any) -> None:
    wrong = conf(tls)
    for name in ("broker_use_ssl", "redis_backend_use_ssl", "global_rate_redis_options"):
        if "ssl_ca_certs" in wrong.get(name, {}):
            wrong[name]["ssl_ca_certs"] = tls.other_ca
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        settings(**wrong).connection().connect()


def test_a_broker_without_options_is_not_verified_as_with_celery_and_a_url_of_ours_is(tls: TLS) -> None:
    url = f"rediss://localhost:{tls.port}/9"

    assert settings(broker_url=url).connection().cert_reqs == ssl.CERT_NONE
    assert settings(global_rate_url=url).connection().cert_reqs == ssl.CERT_REQUIRED
    assert settings(result_backend=url).connection().cert_reqs == ssl.CERT_REQUIRED
    assert settings(broker_url=f"{url}?ssl_cert_reqs=required").connection().cert_reqs == ssl.CERT_REQUIRED


def test_a_url_of_ours_inherits_nothing_of_the_broker(tls: TLS) -> None:
    """A separate Redis has its own certificates."""
    conf = {**conf_of_broker(tls), "global_rate_url": f"rediss://localhost:{tls.port}/9"}
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        settings(**conf).connection().connect()


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
@pytest.mark.parametrize("conf", [conf_of_broker, conf_of_result_backend, conf_of_setting])
def test_a_file_that_is_not_there_is_named(tls: TLS, conf: Any, name: str) -> None:
    """Found at the start. Otherwise tasks would be held, and the log would say no more than FileNotFoundError."""
    bad = conf(tls)
    for where in ("broker_use_ssl", "redis_backend_use_ssl", "global_rate_redis_options"):
        if "ssl_ca_certs" in bad.get(where, {}):
            bad[where][name] = "/no/such.pem"
            setting = where
    with pytest.raises(ImproperlyConfigured) as refused:
        settings(**bad)

    assert str(refused.value).startswith(f"{name} = /no/such.pem: ")
    assert setting in str(refused.value)


def limits(server: Server, url: str, options: dict[str, Any]) -> None:
    """A worker does: 40 tasks at 20/s take 2 s or a little more, and nothing of it is an outage."""
    conf = {"global_rate_redis_options": options}
    with Cluster(f"{server.url}/0", url, "20/s", conf=conf, loglevel="INFO") as cluster:
        cluster.start(1)
        cluster.send("limited", 41)
        cluster.wait_for(41, 15)
        starts = cluster.instants("start")
        log = cluster.log("w0")

    assert starts[-1] - starts[0] >= 2 - 0.025 - 0.05
    assert "no answer" not in log


def test_a_worker_limits_behind_tls(empty_redis: Server, tls: TLS) -> None:
    """The event loop reads TLS."""
    limits(empty_redis, f"rediss://localhost:{tls.port}/9", options(tls))


@pytest.mark.slow
def test_a_worker_limits_in_a_cluster_behind_tls(empty_redis: Server, certificates: Certificates) -> None:
    """Each node announces the port where it has TLS, and the worker is sent to one that does not have its keys."""
    if redis_binary() is None:
        pytest.skip("no Redis to run")
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(contextlib.closing(RedisCluster())).start()
        owner = nodes.owner("{global-rate:v1:lab}:probe")
        fronts = {node: TLS(node.port, certificates) for node in nodes.nodes}
        for node, front in fronts.items():
            stack.callback(front.close)
            node.command("CONFIG", "SET", "cluster-announce-port", front.port)
        stranger = next(node for node in nodes.nodes[:3] if node is not owner)
        wait(lambda: f":{fronts[owner].port}@" in stranger.command("CLUSTER", "NODES"), FORMED_S)
        limits(empty_redis, f"rediss+cluster://localhost:{fronts[stranger].port}", options(fronts[stranger]))
