"""`docker compose` for a project of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from testbed.server import root

from . import leftovers


@dataclass
class Compose:
    """A project.

    Attributes:
        file: its compose file, in the checkout.
        name: of the project: what it creates carries it.
        variables: of the environment that the file reads.
    """

    file: str
    name: str = leftovers.PROJECT + leftovers.RUN
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(self, *command: str, timeout_s: float = 60) -> str:
        """Run `docker compose` and return what it prints.

        Raises:
            subprocess.CalledProcessError: it failed; what it printed is in the error.
        """
        return subprocess.run(
            ["docker", "compose", "--file", self.file, "--project-name", self.name, *command],
            cwd=root(),
            env={**os.environ, **self.variables},
            timeout=timeout_s,
            check=True,
            text=True,
            capture_output=True,
        ).stdout

    @contextmanager
    def up(self) -> Iterator[float]:
        """Everything in it, once it is healthy; yields how long that took, in seconds. Whatever happens, it ends."""
        version = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if version.returncode or not shutil.which("docker"):
            pytest.skip("docker compose is not installed: see https://docs.docker.com/compose/install/")
        begin = time.monotonic()
        try:
            self("up", "--build", "--detach", "--wait", timeout_s=300)
            yield time.monotonic() - begin
        finally:
            self("down", "--volumes", "--timeout", "20", timeout_s=120)
