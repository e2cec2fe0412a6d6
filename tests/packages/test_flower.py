"""Flower shows the rate in force and changes it, knows the states of limited tasks, and shows no password."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("flower", reason="make packages installs it")

from testbed.cluster import Cluster
from testbed.server import free_port, root

from ..cluster.operator import global_rate
from ..conftest import Figures, Server, locked_redis
from .load import judge, send_both

PACKAGES = ("flower",)
SECRET = "s3cret"
PAGES = (
    "/workers",
    "/workers?json=1",
    "/worker/w0@lab",
    "/tasks",
    "/broker",
    "/metrics",
    "/api/tasks",
    "/api/queues/length",
)


@dataclass
class Flower:
    """A Flower, and all that it has answered."""

    url: str
    answers: list[str] = field(default_factory=list)

    def ask(self, path: str, **form: str) -> tuple[int, str]:
        """GET a page, or POST a form to it; returns status and body."""
        data = urllib.parse.urlencode(form).encode() if form else None
        try:
            with urllib.request.urlopen(self.url + path, data, timeout=10) as answer:
                status, body = answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            status, body = exc.code, exc.read().decode()
        self.answers.append(body)
        return status, body

    def workers(self) -> dict[str, Any]:
        """What its API reports about the workers."""
        status, body = self.ask("/api/workers?refresh=1")
        return json.loads(body) if status == 200 else {}

    def rates(self) -> set[str]:
        """How each worker's list of tasks names the limited one."""
        lists = (worker.get("registered", []) for worker in self.workers().values())
        return {name for names in lists for name in names if name.startswith("limited")}


@contextlib.contextmanager
def flowering(cluster: Cluster) -> Iterator[Flower]:
    """Run Flower with the application of a cluster."""
    port = free_port()
    command = [sys.executable, "-m", "celery", "-A", "testbed.app", "flower", f"--port={port}"]
    file = cluster.directory / "flower.log"
    with open(file, "wb") as log:
        process = subprocess.Popen(
            [*command, "--address=127.0.0.1"],
            cwd=root(),
            env={**cluster.environment, "FLOWER_UNAUTHENTICATED_API": "true"},
            stdout=log,
            stderr=log,
        )
    flower = Flower(f"http://127.0.0.1:{port}")

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return len(flower.workers()) == len(cluster.workers)
        return False

    try:
        cluster.wait(answers, 30, "Flower knows the workers")
        yield flower
    finally:
        process.terminate()
        process.wait(10)
        flower.answers.append(file.read_text(errors="replace"))


def test_flower_shows_and_changes_the_rate_in_force(empty_redis: Server, figures: Figures) -> None:
    """20/s declared, then 10/s by Flower for one worker, which is for both, then 40/s by an operator."""
    with locked_redis(SECRET) as locked:
        limiter = f"redis://:{SECRET}@127.0.0.1:{locked.port}/1"
        conf = {"worker_send_task_events": True}
        with Cluster(f"{empty_redis.url}/0", limiter, "20/s", conf=conf, loglevel="DEBUG") as cluster:
            cluster.start(2)
            with flowering(cluster) as flower:
                assert flower.rates() == {"limited [rate_limit=20/s]"}
                send_both(cluster, 30)
                cluster.wait_for(60, 20)
                figures(judge(cluster, 20, *(cluster.instants("start")[place] for place in (4, -2))))

                changed = flower.ask("/api/task/rate-limit/limited", workername="w0@lab", ratelimit="10/s")
                refused = flower.ask("/api/task/rate-limit/limited", workername="w1@lab", ratelimit="abc")
                cluster.wait(lambda: flower.rates() == {"limited [rate_limit=10/s]"}, 5, "Flower shows 10/s")
                send_both(cluster, 20)
                cluster.wait_for(100, 20)
                figures(judge_from(cluster, 10, 60))

                global_rate(cluster, "set", "limited", "40/s")
                cluster.wait(lambda: flower.rates() == {"limited [rate_limit=40/s]"}, 8, "Flower shows 40/s")
                workers = flower.workers()
                pages = {path: flower.ask(path) for path in PAGES}
                cluster.wait(lambda: sum(states(flower).values()) >= 100, 10, "Flower knows 100 tasks")
                seen = states(flower)
            logs = "".join(map(cluster.log, cluster.workers))

    assert changed == (200, '{"message": "new rate limit set successfully for the whole cluster: 10/s, before 20/s"}')
    assert refused[0] == 403
    assert "Invalid rate limit string" in refused[1]
    assert [path for path, (status, _) in pages.items() if status != 200] == []
    assert "limited [rate_limit=40/s]" in pages["/worker/w0@lab"][1]
    assert workers["w0@lab"]["stats"]["global_rate"]["redis"] == f"redis://127.0.0.1:{locked.port}/1"
    assert "global_rate_url" in workers["w0@lab"]["conf"]
    assert seen == {"SUCCESS": 50, "FAILURE": 50}
    assert [answer for answer in [*flower.answers, logs] if SECRET in answer] == []


def judge_from(cluster: Cluster, per_s: float, place: int) -> str:
    """Judge the starts from one on."""
    starts = cluster.instants("start")
    return judge(cluster, per_s, starts[place], starts[-2])


def states(flower: Flower) -> Counter[str]:
    """How many tasks Flower knows in each state."""
    _, body = flower.ask("/api/tasks?limit=1000")
    return Counter(task["state"] for task in json.loads(body).values())
