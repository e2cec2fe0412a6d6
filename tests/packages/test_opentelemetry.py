"""Each run of a limited task is a span, and a failed one says so."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

pytest.importorskip("opentelemetry.instrumentation.celery", reason="make packages installs it")

from benchmarks.cluster import Cluster

from ..conftest import Figures, Server
from .load import judge, send_both

PACKAGES = ("opentelemetry-instrumentation-celery", "opentelemetry-sdk")


def test_each_run_is_a_span(empty_redis: Server, figures: Figures) -> None:
    """30 tasks that succeed and 30 that fail, at 20/s: 60 spans, of which 30 have an error."""
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", "20/s") as cluster:
        send_both(cluster, 30)
        cluster.start(2, options=("-I", "tests.packages.apps.telemetry"))
        cluster.wait_for(60, 20)
        figures(judge(cluster, 20, *(cluster.instants("start")[place] for place in (4, -2))))
        file = cluster.directory / "spans"

        def spans() -> list[dict[str, Any]]:
            return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

        cluster.wait(lambda: len(spans()) >= 60, 10, "60 spans")
        told = Counter((span["name"], span["status"]["status_code"]) for span in spans())

    assert told == {("run/limited", "UNSET"): 30, ("run/limited", "ERROR"): 30}
