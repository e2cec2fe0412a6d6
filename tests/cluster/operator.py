"""What an operator does to a cluster of workers, and what Redis keeps of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NamedTuple

from testbed.cluster import Cluster
from testbed.server import root

from ..conftest import Server

#: D of 100/s and slower, up to 4/s, and what R and J add on a busy machine: 50/s use it with two releases at the most.
SLACK_S = 0.025 + 0.015
#: A limit is in force everywhere this long after it was set, in seconds: the promise of `control rate_limit`.
IN_FORCE_S = 0.25
#: The same if workers learn of it from Redis only, with an answer.
FROM_REDIS_S = 1.5
#: A password that nothing may print.
SECRET = "s3cret"


def cluster_on(server: Server, rate: str | None, **more: Any) -> Cluster:
    return Cluster(f"{server.url}/0", f"{server.url}/1", rate, **more)


def global_rate(cluster: Cluster, *words: str, is_good: bool = True, app: str = "testbed.app") -> str:
    """Run `celery global-rate`, as an operator does."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", app, "global-rate", *words],
        env={**cluster.environment, "PYTHONWARNINGS": "ignore"},
        cwd=root(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert (done.returncode == 0) == is_good, done.stdout + done.stderr
    return done.stdout + done.stderr


def control(cluster: Cluster, rate: str, **more: Any) -> list[dict[str, str]]:
    """`control rate_limit`: what each worker replies."""
    replies = cluster.app.control.rate_limit("limited", rate, reply=True, timeout=2, limit=len(cluster.workers), **more)
    return [answer for reply in replies for answer in reply.values()]


def kept_overrides(server: Server) -> dict[str, Any]:
    """The overrides of all tasks, as Redis keeps them: their JSON and their version."""
    found = {}
    kept: dict[Any, Any] = server.client(1).hgetall("{global-rate:v1:lab}:records")
    for name, text in kept.items():
        version, _, _, content = text.decode().split(":", 3)
        found[name.decode()] = {"version": int(version), **json.loads(content)}
    return found


class Answer(NamedTuple):
    """What the command has printed, and its exit code."""

    code: int
    lines: list[str]
    error: str

    def of(self, name: str) -> list[str]:
        """The texts beside a name."""
        return [line[len(name) :].strip() for line in self.lines if line.startswith(f"{name} ")]

    @property
    def verdict(self) -> str:
        return self.lines[-1]


def check(cluster: Cluster, *options: str, **environment: str) -> Answer:
    """Run the command, as an operator does, with the settings of the cluster."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "testbed.app", "global-rate", "check", *options],
        env={**cluster.environment, "PYTHONWARNINGS": "ignore", **environment},
        cwd=root(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return Answer(done.returncode, done.stdout.splitlines(), done.stderr)
