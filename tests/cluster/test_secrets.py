"""No password of the limits' Redis in what Celery shows of an application, whichever way it was set."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.app import utils
from celery.worker.control import Panel

from celery_global_rate.worker import control  # noqa: F401  (commands)
from testbed.cluster import Cluster
from testbed.server import Redis, root

from ..conftest import Server, locked_redis
from .operator import global_rate

SECRET = "s3cret"
#: All that workers can be asked, ours among it.
INSPECTIONS = sorted(name for name, command in Panel.meta.items() if command.type == "inspect")


@pytest.fixture(scope="module")
def locked() -> Iterator[Redis]:
    with locked_redis(SECRET) as server:
        yield server


def celery_report(cluster: Cluster) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "testbed.app", "report"],
        env=cluster.environment,
        cwd=root(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("way", ["setting", "redis options", "option", "environment"])
def test_no_output_has_a_password(empty_redis: Server, locked: Redis, way: str) -> None:
    """The limits are kept, so the password was right; and one that is wrong later is not shown either."""
    url = f"redis://:{SECRET}@127.0.0.1:{locked.port}/1"
    conf: dict[str, Any] = {}
    options = ["--global-rate-url", url] if way == "option" else []
    if way == "setting":
        conf["global_rate_url"] = url
    elif way == "redis options":
        conf.update(global_rate_url=f"{locked.url}/1", global_rate_redis_options={"password": SECRET})
    with Cluster(f"{empty_redis.url}/0", rate="50/s", conf=conf, loglevel="DEBUG") as cluster:
        if way == "environment":
            cluster.environment["CELERY_WORKER_GLOBAL_RATE_URL"] = url
        cluster.start(1, pool="solo", options=[*options, "-I", "tests.apps.reprs"])
        cluster.send("limited", 5)
        cluster.wait_for(5, 10)
        cluster.send("reprs")
        file = cluster.directory / "reprs"
        cluster.wait(file.exists, 10)
        inspect = cluster.app.control.inspect(timeout=2, limit=1)
        outputs = {name: str(inspect._request(name)) for name in INSPECTIONS}
        outputs["report"] += celery_report(cluster)
        outputs["reprs"] = file.read_text()
        if way == "setting":
            outputs["show"] = global_rate(cluster, "show")
        client = locked.client()
        client.config_set("requirepass", "another")
        try:
            client.client_kill_filter(_type="normal", skipme=True)
            cluster.wait(lambda: "no answer from" in cluster.log("w0"), 5)
            outputs["refused"] = global_rate(cluster, "show", is_good=False) if way == "setting" else ""
        finally:
            client.config_set("requirepass", SECRET)
        outputs["log"] = cluster.log("w0")

    assert "limits are cluster-wide" in outputs["log"]
    assert f"127.0.0.1:{locked.port}/1" in outputs["stats"]
    assert "Settings(" in outputs["reprs"]
    assert f"port={locked.port}" in outputs["reprs"]
    assert [name for name, text in outputs.items() if SECRET in text] == []
    assert "global_rate" in outputs["conf"] or way in ("option", "environment")


@pytest.mark.parametrize("namespace", ["CELERY", "proj"])
def test_a_password_under_a_namespace_is_masked(namespace: str) -> None:
    """As in a project of Django."""
    app = Celery("proj", set_as_current=False, broker="memory://")
    name = f"{namespace}_{'GLOBAL_RATE_URL' if namespace.isupper() else 'global_rate_url'}"
    app.config_from_object({name: f"redis://:{SECRET}@h/1"}, namespace=namespace)
    outputs = app.bugreport() + str(app.conf.table()) + app.conf.humanize()

    assert name in outputs
    assert SECRET not in outputs


def test_celery_masks_by_a_pattern_that_can_be_replaced() -> None:
    """What is masked by its name already stays so."""
    masked = utils.filter_hidden_settings({"global_rate_url": SECRET, "redis_password": SECRET, "timezone": "UTC"})

    assert masked == {"global_rate_url": "********", "redis_password": "********", "timezone": "UTC"}
