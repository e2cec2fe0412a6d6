"""`docker compose up`: the cluster of docker-compose.yml, as a user starts it."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator

import docker
import pytest

from testbed.meanwhile import wait
from testbed.server import free_port
from testbed.windows import excess, used

from .compose import Compose
from .conftest import Figures

FLOWER_PORT = free_port()
#: Of 10/s, as examples/cluster/proj.py declares.
INTERVAL_S = 0.1
GRACE_S = 0.025
WATCH_S = 10
#: Entries of a stream are stamped in whole milliseconds.
STAMP_S = 0.001
#: Between two tasks without a limit at the most: examples/cluster/producer.py waits 0.1 s, and sending takes time.
PROBE_S = 0.2
#: More than this would allow too much: a task without a limit had waited behind those that are held.
MOST_SLACK_S = 1.0


compose = Compose("docker-compose.yml", variables={"FLOWER_PORT": str(FLOWER_PORT)})


@pytest.fixture
def up(docker_client: docker.DockerClient) -> Iterator[float]:
    """The cluster; how long it took to come up, in seconds."""
    with compose.up() as up_s:
        yield up_s


def starts(stream: str = "starts") -> list[tuple[float, str]]:
    """The instant of each start on the Redis clock, in seconds, and what the task left with it."""
    text = compose("exec", "-T", "redis", "redis-cli", "--json", "XRANGE", stream, "-", "+")
    return [(int(stamp.partition("-")[0]) / 1000, entry[1]) for stamp, entry in json.loads(text)]


def printed_rates() -> list[str]:
    """The rates that the producer has printed since three workers run."""
    return re.findall(r"([\d.]+) starts a second on 3 workers", compose("logs", "producer"))


def uncertainty_s() -> float:
    """R: how far a worker's view of the Redis clock can have been off, in seconds."""
    stats = json.loads(compose("exec", "-T", "producer", "celery", "-A", "proj", "inspect", "stats", "--json"))
    return max(answer["global_rate"]["widest_clock_uncertainty_ms"] for answer in stats.values()) / 1000


def test_the_cluster_of_the_compose_file(up: float, docker_client: docker.DockerClient, figures: Figures) -> None:
    """Three workers at 10/s: 0.98 of the slots in 10 s, no window above the promise, and `down` leaves nothing.

    The promise for starts has J, the delay of the pool, which is not seen from outside. Ten times a second the producer
    sends a task without a limit: the slowest of them, from its sending to its first line, is an upper bound. Both
    count from when all three workers run, since until then that delay is the time that a worker needs to start.
    """
    wait(lambda: len({worker for _, worker in starts()}) == 3, 60, lambda: compose("logs", "worker"))
    begin = starts()[-1][0]
    time.sleep(WATCH_S + 0.5)  # nothing else: every look costs the machine a third of a second
    seen = [(instant, worker) for instant, worker in starts() if instant >= begin]
    look_ups = [(instant, int(sent_ms) / 1000) for instant, sent_ms in starts("look-ups")]
    delays = [instant - sent for instant, sent in look_ups if sent >= begin]
    instants = [instant for instant, _ in seen]
    share = used(instants, INTERVAL_S, begin, begin + WATCH_S)
    slack_s = GRACE_S + uncertainty_s() + max(delays)
    worst = excess(instants, INTERVAL_S, 1, slack_s + STAMP_S)
    shares = Counter(worker for _, worker in seen)
    wait(lambda: bool(printed_rates()), 15, lambda: compose("logs", "producer"))
    lines = printed_rates()
    check = compose("exec", "-T", "producer", "celery", "-A", "proj", "global-rate", "check")
    with urllib.request.urlopen(f"http://127.0.0.1:{FLOWER_PORT}/", timeout=10) as answer:
        flower = answer.status
    label = {"label": f"com.docker.compose.project={compose.name}"}
    # A volume without a name has no label either: it must not come into being, since `down` would leave it.
    mounts = [
        mount for container in docker_client.containers.list(filters=label) for mount in container.attrs["Mounts"]
    ]
    begin_down = time.monotonic()
    compose("down", "--timeout", "20", timeout_s=120)
    down_s = time.monotonic() - begin_down
    left = [
        *docker_client.containers.list(all=True, filters=label),
        *docker_client.networks.list(filters=label),
        *docker_client.volumes.list(filters=label),
    ]
    figures(
        f"up in {up:.0f} s; {share:.4f} of 10/s used, worst window {worst:+.2f} starts against the promise "
        f"(D + R + J {slack_s * 1000:.0f} ms), "
        f"shares {'/'.join(str(count) for _, count in shares.most_common())}; the producer says {', '.join(lines)}; "
        f"down in {down_s:.0f} s, {len(left)} things left"
    )

    assert 0.98 <= share <= 1.02
    assert len(delays) >= WATCH_S / PROBE_S
    assert slack_s <= MOST_SLACK_S
    assert worst <= 0
    assert len(shares) == 3
    assert "On in all workers that have answered (3)" in check
    assert lines
    assert 9.5 <= float(lines[-1]) <= 10.5
    assert flower == 200
    assert {mount["Type"] for mount in mounts} <= {"bind", "tmpfs"}
    assert left == []
