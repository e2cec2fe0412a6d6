"""Tasks whose strategy is not Celery's, as those of celery-batches: they have no limit, and that is said."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from celery import Celery, Task
from celery.worker.strategy import default

from celery_global_rate.declared_limits import has_own_strategy
from testbed.cluster import Cluster
from testbed.server import root

from ..conftest import Server

INCLUDE = ("-I", "tests.apps.batch")
WHY = "it has its own Strategy"


def global_rate(cluster: Cluster, *words: str, is_good: bool = True) -> str:
    """Run `celery global-rate` with the application that has the task."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tests.apps.batch", "global-rate", *words],
        env={**cluster.environment, "PYTHONWARNINGS": "ignore"},
        cwd=root(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) == is_good, done.stdout
    return done.stdout


def test_a_task_that_is_not_limited_is_not_shown_as_limited(empty_redis: Server) -> None:
    """1/h is declared, and six messages are three starts at once. Log, `show`, `check` and `rate_limits` say why.

    An operator who sets another rate gets the reason as well, and nothing is changed.
    """
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", "5/s", loglevel="INFO") as cluster:
        cluster.start(1, options=INCLUDE)
        cluster.send("batch", 6)
        cluster.wait_for(3, 10, task="batch")
        log = cluster.log("w0")
        (shown,) = (row for row in json.loads(global_rate(cluster, "show", "--json")) if row["task"] == "batch")
        table = global_rate(cluster, "show").splitlines()
        checked = global_rate(cluster, "check").splitlines()
        (reply,) = cluster.app.control.broadcast("rate_limits", reply=True, timeout=2, limit=1)
        (changed,) = cluster.app.control.rate_limit("batch", "5/s", reply=True, timeout=2, limit=1)
        (reset,) = cluster.app.control.broadcast(
            "rate_limit_reset", {"task_name": "batch"}, reply=True, timeout=2, limit=1
        )
        refused = [
            global_rate(cluster, *words, is_good=False) for words in (("set", "batch", "5/s"), ("pause", "batch"))
        ]
        changed_by_all = [global_rate(cluster, verb, "--all") for verb in ("pause", "resume", "reset")]
        history = global_rate(cluster, "history", "batch")

    assert f"global-rate: batch declares 1/h and is not limited: {WHY}" in log
    assert "global-rate: batch at 1/h" not in log
    assert (shown["declared"], shown["in_force"]) == ("1/h", "none")
    (place,) = (number for number, line in enumerate(table) if line.startswith("batch "))
    assert table[place].split()[1:3] == ["1/h", "none"]
    assert WHY in table[place + 1]
    assert f"warning  batch declares 1/h and is not limited: {WHY}" in "\n".join(checked)
    limits = reply["w0@lab"]
    assert (limits["batch"]["declared"], limits["batch"]["in_force"]) == ("1/h", "none")
    assert limits["limited"]["in_force"] == "5/s"
    for answer in (changed["w0@lab"]["error"], reset["w0@lab"]["error"], *refused):
        assert f"batch is not limited: {WHY}" in answer
    for changes in changed_by_all:
        assert "limited" in changes
        assert "batch" not in changes
    assert "batch was never overridden" in history


def test_celerys_own_strategy_is_told_from_others() -> None:
    class Batches(Task):
        abstract = True

        def Strategy(self, task: object, app: object, consumer: object) -> None:  # noqa: N802
            """As celery-batches has it."""

    app = Celery("own", set_as_current=False)
    found = {}
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "by name": {"Strategy": "celery.worker.strategy:default"},
        "by function": {"Strategy": staticmethod(default)},
        "another": {"Strategy": "proj.strategies:mine"},
        "batches": {"base": Batches},
    }
    for name, options in kinds.items():

        def run() -> None:
            """Nothing."""

        found[name] = has_own_strategy(app.task(name=name, shared=False, lazy=False, **options)(run))

    assert found == {"plain": False, "by name": False, "by function": False, "another": True, "batches": True}
