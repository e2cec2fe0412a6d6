"""Batches work beside a limited task, and a limit that they declare is said to be none."""

from __future__ import annotations

import pytest

pytest.importorskip("celery_batches", reason="make packages installs it where it takes the Celery that is tested")

from testbed.cluster import Cluster

from ..conftest import Figures, Server
from .load import judge, send_both

PACKAGES = ("celery-batches",)


def test_batches_run_beside_a_limited_task(empty_redis: Server, figures: Figures) -> None:
    """1/h is declared by the batch, and 40 calls of it start at once in batches of ten; the limited task has 20/s."""
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", "20/s") as cluster:
        (name,) = cluster.start(1, options=("-I", "tests.packages.apps.batches"))
        send_both(cluster, 30)
        cluster.send("batch", 40)
        cluster.wait_for(40, 10, task="batch")
        cluster.wait_for(60, 20)
        figures(judge(cluster, 20, *(cluster.instants("start")[place] for place in (4, -2))))
        log = cluster.log(name)
        (reply,) = cluster.app.control.rate_limit("batch", "5/s", reply=True, timeout=2, limit=1)

    assert "global-rate: batch declares 1/h and is not limited" in log
    assert "batch is not limited" in reply[f"{name}@lab"]["error"]
