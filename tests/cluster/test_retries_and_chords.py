"""Retries and parts of a canvas are starts like any other, in real workers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from celery import chain, chord, group

from testbed.cluster import Cluster

from ..conftest import Figures, Server

INCLUDE = ("-I", "tests.apps.project")


def test_a_retry_is_a_start_like_any_other(empty_redis: Server, figures: Figures) -> None:
    """A task at 2/s that retries at once: starts are T = 0.5 s apart, less D + R (0.06 s), and noise of a start."""
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1") as cluster:
        cluster.start(1, options=INCLUDE)
        cluster.send("again")
        cluster.wait_for(4, 10, task="again")
        starts = cluster.instants("start", "again")
    gaps = [later - earlier for earlier, later in zip(starts, starts[1:])]
    figures(f"a task at 2/s that retries at once: gaps {[round(gap, 2) for gap in gaps]}")

    assert len(gaps) == 3
    assert min(gaps) >= 0.4
    assert max(gaps) <= 1


@pytest.mark.parametrize("given", ["by a default", "by a base class"])
@pytest.mark.parametrize("joined", ["by Redis", "by chord_unlock", "by chord_unlock, stock"])
def test_a_rate_for_all_tasks_stalls_no_chord(
    empty_redis: Server, figures: Figures, tmp_path: Path, joined: str, given: str
) -> None:
    """1/m for all, parts at 50/s: a chain, a group and a chord are done at once; two tasks at 1/m are not.

    Redis joins a chord by itself. A backend of files needs `celery.chord_unlock`, which looks after 1 s, and then every
    0.2 s until the header, 2 s long, is done; a process is free for the first look. In stock Celery the second look has
    to wait for a minute.
    """
    stock, is_default = "stock" in joined, given == "by a default"
    backend = f"{empty_redis.url}/0" if joined == "by Redis" else f"file://{tmp_path}"
    conf = {"result_backend": backend, "result_chord_retry_interval": 0.2}
    conf.update({"task_default_rate_limit": "1/m"} if is_default else {})
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", extension=not stock, conf=conf) as cluster:
        if not is_default:
            cluster.setup["task_cls"] = "tests.apps.base:Base"
        app = cluster.app
        app.conf.result_backend = backend
        cluster.start(1, options=INCLUDE)
        add, total, begin = app.signature("add", app=app), app.signature("total", app=app), time.monotonic()
        cluster.send("free", 2)
        results = [
            chain(add.clone((1, 2)), add.clone((3,))).apply_async(),
            group(add.clone((number, 1)) for number in range(3)).apply_async(),
            chord([add.clone((number, 1, number * 2.0)) for number in range(2)], total).apply_async(),
        ]
        values = [result.get(timeout=15) for result in results[: 2 if stock else 3]]
        if stock:
            cluster.wait_for(7, 10, task="add")
            time.sleep(3)
        took = time.monotonic() - begin
        at_the_default, joins = len(cluster.instants("start", "free")), len(cluster.instants("start", "total"))
    figures(f"chain, group and chord under 1/m {given}: {took:.2f} s, the chord joined {joins} time(s)")

    assert values == [6, [1, 2, 3], 3][: len(values)]
    assert joins == (0 if stock else 1)
    assert at_the_default == 1
    assert stock or took < 5
