"""An example as its README has it: in an environment of its own, in a copy of its folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import TypeVar

import pytest

from testbed.environments import FOLDER, environment
from testbed.server import free_port, root

from ..conftest import Server
from .api import Api

Self = TypeVar("Self", bound="Example")


def python_of(name: str) -> str:
    """The Python of an environment with what the example requires; where it cannot be installed, the test is skipped.

    The package itself is that of the checkout, on the path.
    """
    required = (root() / "examples" / name / "requirements.txt").read_text().split()
    assert required[0] == "celery-global-rate"
    try:
        return environment(FOLDER / f"example-{name}", *required[1:])
    except RuntimeError as exc:
        pytest.skip(str(exc))


class Example:
    """Processes of an example, which end with it.

    Args:
        name: its folder in `examples`.
        folder: where its files are copied to; logs are there too.
        server: the Redis of broker and limits.
        api: what it calls.
        variables: more of the environment of its processes.

    Attributes:
        port: of its own server, if it has one; free until that starts.
    """

    def __init__(self, name: str, folder: Path, server: Server, api: Api, **variables: str) -> None:
        self.python = python_of(name)
        self.folder = folder / name
        shutil.copytree(root() / "examples" / name, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        urls = {"REDIS_URL": f"{server.url}/0", "API_URL": api.url}
        self.environment = {**os.environ, "PYTHONPATH": str(root()), "PYTHONUNBUFFERED": "1", **urls, **variables}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(60)  # a process of billiard may wait 30 s for its last result to be read

    def start(self, name: str, *command: str) -> None:
        """Start a module of its environment; what it prints is in the log of this name."""
        with (self.folder / f"{name}.log").open("wb") as out:
            self.processes[name] = subprocess.Popen(
                [self.python, "-m", *command], cwd=self.folder, env=self.environment, stdout=out, stderr=out
            )

    def stop(self, name: str) -> None:
        """Have a process end."""
        process = self.processes.pop(name)
        process.terminate()
        process.wait(10)

    def start_workers(self, count: int, app: str, *options: str) -> None:
        """Start workers, and wait until they are ready."""
        names = [f"worker-{number}" for number in range(count)]
        for name in names:
            self.start(name, "celery", "-A", app, "worker", "-l", "INFO", "-n", f"{name}@lab", *options)
        self.wait(lambda: all(" ready." in self.log(name) for name in names), 30)

    def start_server(self, name: str, *command: str) -> None:
        """Start what listens on `port`, and wait until it does."""
        self.start(name, *command)
        self.wait(self._is_up, 30)

    def _is_up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Message, bytes]:
        """Status, headers and body of what its server answers; an underscore in a header's name is a hyphen."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def run(self, *command: str) -> str:
        """What a command of its environment prints; it must succeed."""
        done = subprocess.run(
            [self.python, *command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def log(self, name: str) -> str:
        """What a process has printed so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Poll until a deadline; the logs are in the error, and a process that has ended is one."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(f"{name}:\n{self.log(name)[-2000:]}" for name in self.processes)
                raise TimeoutError(f"ended: {ended}, after {timeout_s} s\n{logs}")
            time.sleep(0.02)
