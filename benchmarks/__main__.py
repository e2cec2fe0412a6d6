"""The table of the README: the same loads here and on stock Celery, on real workers, as JSON and as text.

python -m benchmarks                 all of it, about half an hour
python -m benchmarks rates fast      some of it: rates, slow, fast, overhead
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from .cluster import Cluster
from .scenarios import WARM_UP_S, Run, backlog
from .server import Redis, root

REPORT = root() / "benchmarks" / "report.json"


def watch(rate: str, workers: int, seconds: float, extension: bool = True) -> Run:
    """One cell: fresh servers, one for the broker and one for the limits, and fresh workers."""
    broker, limiter = Redis(), Redis()
    try:
        broker.start()
        limiter.start()
        with Cluster(broker.url, limiter.url, rate, extension=extension) as cluster:
            return backlog(cluster, limiter.client(), workers, seconds)
    finally:
        broker.close()
        limiter.close()


def throughput(workers: int, rate: str | None, seconds: float = 5) -> float:
    """Starts a second under backlog: without a limit on stock Celery, or with one that no task reaches."""
    broker = Redis().start()
    try:
        with Cluster(f"{broker.url}/0", f"{broker.url}/1", rate, extension=rate is not None) as cluster:
            cluster.send("limited", int((seconds + WARM_UP_S + 1) * 2500))
            cluster.start(workers)
            time.sleep(WARM_UP_S)
            before, begin = len(cluster.instants("start")), time.monotonic()
            time.sleep(seconds)
            end = time.monotonic()
            return (sum(instant < end for instant in cluster.instants("start")) - before) / (end - begin)
    finally:
        broker.close()


def rates() -> Iterator[dict[str, Any]]:
    """7/s to 500/s with 1, 4 and 10 workers, each at least 30 s and 100 slots; stock Celery for 10 s beside it."""
    for rate, seconds in (("7/s", 30), ("10/s", 30), ("100/s", 30), ("500/s", 30)):
        for workers in (1, 4, 10):
            here, stock = watch(rate, workers, seconds), watch(rate, workers, 10, extension=False)
            yield {"here": here.as_dict(), "stock": stock.as_dict(), "text": f"{here}\n    stock: {stock}"}


def slow() -> Iterator[dict[str, Any]]:
    """1/s for two minutes, 1/m for four."""
    for rate, workers, seconds in (("1/s", 4, 120), ("1/m", 2, 240)):
        run = watch(rate, workers, seconds)
        yield {"here": run.as_dict(), "text": str(run)}


def fast() -> Iterator[dict[str, Any]]:
    """1000/s with 2 and with 10 workers, against what the same workers do without a limit."""
    for workers in (2, 10):
        unlimited = throughput(workers, None)
        run = watch("1000/s", workers, 30)
        bar = min(1000.0, 0.85 * unlimited)
        text = f"{run}; without a limit {unlimited:.0f}/s: {run.starts_per_s / bar:.3f} of {bar:.0f}/s"
        yield {"here": run.as_dict(), "unlimited": unlimited, "share": run.starts_per_s / bar, "text": text}


def overhead() -> Iterator[dict[str, Any]]:
    """A limit that no task reaches against no limit, in turn, five times."""
    for workers in (1, 2):
        pairs = [(throughput(workers, "100000/s"), throughput(workers, None)) for _ in range(5)]
        limited, unlimited = (statistics.median(column) for column in zip(*pairs))
        ratio = limited / unlimited
        text = f"{workers} workers: {limited:.0f}/s under 100000/s, {unlimited:.0f}/s without a limit: {ratio:.3f}"
        yield {"pairs": pairs, "ratio": ratio, "text": text}


PARTS = {part.__name__: part for part in (rates, slow, fast, overhead)}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=root(), capture_output=True, text=True, check=False).stdout.strip()
    packages = {name: version(name) for name in ("celery", "kombu", "redis")}
    return {"python": platform.python_version(), "cores": os.cpu_count(), "commit": commit, **packages}


def main(names: list[str]) -> int:
    """Run the parts that were named, or all; returns 1 if a window exceeded its promise."""
    report = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    report["machine"] = machine()
    kept = True
    for name in names or PARTS:
        report[name] = []
        for cell in PARTS[name]():
            print(f"{name}: {cell.pop('text')}", flush=True)
            kept = kept and cell.get("here", {}).get("kept", True)
            report[name].append(cell)
            REPORT.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
