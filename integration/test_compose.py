"""`docker compose up`: the cluster of docker-compose.yml, as a user starts it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator

import docker
import pytest

from benchmarks.server import free_port, root
from benchmarks.windows import excess, used

from . import leftovers
from .conftest import Figures
from .fleet import wait

PROJECT = leftovers.PROJECT + leftovers.RUN
FLOWER_PORT = free_port()
#: Of 10/s, as examples/cluster/proj.py declares.
INTERVAL_S = 0.1


def compose(*command: str, timeout_s: float = 60) -> str:
    """Run `docker compose` for a project of our own and return what it prints.

    Raises:
        subprocess.CalledProcessError: it failed; what it printed is in the error.
    """
    return subprocess.run(
        ["docker", "compose", "--project-name", PROJECT, *command],
        cwd=root(),
        env={**os.environ, "FLOWER_PORT": str(FLOWER_PORT)},
        timeout=timeout_s,
        check=True,
        text=True,
        capture_output=True,
    ).stdout


@pytest.fixture
def up(docker_client: docker.DockerClient) -> Iterator[float]:
    """The cluster, once everything in it is healthy; how long that took, in seconds. Whatever happens, it ends."""
    version = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if version.returncode or not shutil.which("docker"):
        pytest.skip("docker compose is not installed: see https://docs.docker.com/compose/install/")
    begin = time.monotonic()
    try:
        compose("up", "--build", "--detach", "--wait", timeout_s=300)
        yield time.monotonic() - begin
    finally:
        compose("down", "--timeout", "20", timeout_s=120)


def starts() -> list[tuple[float, str]]:
    """The instant of each start on the Redis clock, in seconds, and its worker."""
    text = compose("exec", "-T", "redis", "redis-cli", "--json", "XRANGE", "starts", "-", "+")
    return [(int(stamp.partition("-")[0]) / 1000, entry[1]) for stamp, entry in json.loads(text)]


def test_the_cluster_of_the_compose_file(up: float, docker_client: docker.DockerClient, figures: Figures) -> None:
    """Three workers at 10/s: 0.98 of the slots in 10 s, no window above the promise, and `down` leaves nothing.

    D + R + J is taken for one interval, 100 ms: D is 25 ms, and 75 ms are more than two busy cores delay a task once
    all workers have begun. A first task waits for its connection, in a container that may use one core at the most.
    """
    wait(lambda: len({worker for _, worker in starts()}) == 3, 60, lambda: compose("logs", "worker"))
    begin = starts()[-1][0]
    wait(lambda: starts()[-1][0] > begin + 10.5, 30)
    seen = starts()
    instants = [instant for instant, _ in seen if instant >= begin]
    share = used(instants, INTERVAL_S, begin, begin + 10)
    worst = excess(instants, INTERVAL_S, 1, INTERVAL_S)
    shares = Counter(worker for instant, worker in seen if instant >= begin)
    lines = re.findall(r"([\d.]+) starts a second on 3 workers", compose("logs", "producer"))
    check = compose("exec", "-T", "producer", "celery", "-A", "proj", "global-rate", "check")
    with urllib.request.urlopen(f"http://127.0.0.1:{FLOWER_PORT}/", timeout=10) as answer:
        flower = answer.status
    begin_down = time.monotonic()
    compose("down", "--timeout", "20", timeout_s=120)
    down_s = time.monotonic() - begin_down
    label = {"label": f"com.docker.compose.project={PROJECT}"}
    left = [
        *docker_client.containers.list(all=True, filters=label),
        *docker_client.networks.list(filters=label),
        *docker_client.volumes.list(filters=label),
    ]
    figures(
        f"up in {up:.0f} s; {share:.4f} of 10/s used, worst window {worst:+.2f} starts against the promise, "
        f"shares {'/'.join(str(count) for _, count in shares.most_common())}; the producer says {', '.join(lines)}; "
        f"down in {down_s:.0f} s, {len(left)} things left"
    )

    assert 0.98 <= share <= 1.02
    assert worst <= 0
    assert len(shares) == 3
    assert "On in all workers that have answered (3)" in check
    assert lines
    assert 9.5 <= float(lines[-1]) <= 10.5
    assert flower == 200
    assert left == []
