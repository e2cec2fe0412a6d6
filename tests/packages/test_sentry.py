"""Errors and transactions of limited tasks arrive at Sentry."""

from __future__ import annotations

import json
from collections import Counter

import pytest

pytest.importorskip("sentry_sdk", reason="make packages installs it")

from benchmarks.cluster import Cluster

from ..conftest import Figures, Server
from .load import judge, send_both

PACKAGES = ("sentry-sdk",)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_sentry_hears_of_each_task(empty_redis: Server, figures: Figures, pool: str) -> None:
    """30 tasks that succeed and 30 that fail, at 20/s: 60 transactions, and 30 errors."""
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", "20/s") as cluster:
        send_both(cluster, 30)
        cluster.start(2, pool=pool, options=("-I", "tests.packages.apps.sentry"))
        cluster.wait_for(60, 20)
        figures(judge(cluster, 20, *(cluster.instants("start")[place] for place in (4, -2))))
        file = cluster.directory / "sentry"

        def events() -> list[dict[str, object]]:
            return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

        cluster.wait(lambda: len(events()) >= 90, 10, "90 events")
        told = events()
    transactions = [event for event in told if event.get("type") == "transaction"]
    errors = [event for event in told if "exception" in event]

    assert (len(transactions), len(errors)) == (60, 30)
    assert {event["transaction"] for event in told} == {"limited"}
    values = [event["exception"]["values"][-1] for event in errors]
    assert Counter((value["type"], value["value"]) for value in values) == {("RuntimeError", "boom"): 30}
