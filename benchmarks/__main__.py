"""The same loads here and on stock Celery, on real workers: JSON, and with it the tables and the chart.

python -m benchmarks                 all of it, about half an hour
python -m benchmarks rates fast      some of it: rates, slow, fast, overhead, busy, instant_tasks, lone, many_limits,
                                     tenants
python -m benchmarks --draw          nothing is measured: tables and chart again from benchmarks/report.json
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from testbed.cluster import Cluster
from testbed.scenarios import WARM_UP_S, Run, backlog
from testbed.server import Redis, root
from testbed.windows import percentile

from .busy import LOADS, compare, instant, latency
from .figures import draw
from .many import at_rest, many
from .tenants import beside_a_large_one, under_one

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


def side_by_side(here: Run, stock: Run) -> dict[str, Any]:
    """The same load here and on stock Celery, for the report."""
    return {"here": here.as_dict(), "stock": stock.as_dict(), "text": f"{here}\n    stock: {stock}"}


def rates() -> Iterator[dict[str, Any]]:
    """7/s to 500/s with 1, 4 and 10 workers, each at least 30 s and 100 slots; stock Celery for 10 s beside it."""
    for rate, seconds in (("7/s", 30), ("10/s", 30), ("100/s", 30), ("500/s", 30)):
        for workers in (1, 4, 10):
            yield side_by_side(watch(rate, workers, seconds), watch(rate, workers, 10, extension=False))


def slow() -> Iterator[dict[str, Any]]:
    """1/s for two minutes, 1/m for four; stock Celery for 20 s and 70 s."""
    for rate, workers, seconds, stock_s in (("1/s", 4, 120, 20), ("1/m", 2, 240, 70)):
        yield side_by_side(watch(rate, workers, seconds), watch(rate, workers, stock_s, extension=False))


def fast() -> Iterator[dict[str, Any]]:
    """1000/s with 2 and with 10 workers, against what the same workers do without a limit."""
    for workers in (2, 10):
        unlimited = throughput(workers, None)
        run = watch("1000/s", workers, 30)
        share = run.starts_per_s / min(1000.0, 0.85 * unlimited)
        cell = side_by_side(run, watch("1000/s", workers, 10, extension=False))
        cell["text"] += (
            f"\n    without a limit {unlimited:.0f}/s: {share:.3f} of the smaller of 1000/s and 85 % of that"
        )
        yield {**cell, "unlimited": unlimited, "share": share}


def overhead() -> Iterator[dict[str, Any]]:
    """A limit that no task reaches against no limit, in turn, five times."""
    for workers in (1, 2):
        pairs = [(throughput(workers, "100000/s"), throughput(workers, None)) for _ in range(5)]
        limited, unlimited = (statistics.median(column) for column in zip(*pairs))
        ratio = limited / unlimited
        text = f"{workers} workers: {limited:.0f}/s under 100000/s, {unlimited:.0f}/s without a limit: {ratio:.3f}"
        yield {"pairs": pairs, "ratio": ratio, "text": text}


def busy() -> Iterator[dict[str, Any]]:
    """Limits near and beyond what the pool can do, against stock Celery without one."""
    for load in LOADS:
        yield from compare(load)


def instant_tasks() -> Iterator[dict[str, Any]]:
    """Tasks that take no time under a limit out of reach, starts and processor time, against stock Celery."""
    for processes in (1, 2, 4, 8):
        yield instant(processes)


def lone() -> Iterator[dict[str, Any]]:
    """What a limit adds to the way of a task that nobody waits before."""
    here, stock = latency("100000/s"), latency(None)
    added = {share: percentile(here, share) - percentile(stock, share) for share in (0.5, 0.99)}
    text = "a lone task: " + ", ".join(f"p{share * 100:.0f} {s * 1000:+.2f} ms" for share, s in added.items())
    yield {"added_s": list(added.values()), "text": text}


def many_limits() -> Iterator[dict[str, Any]]:
    """A hundred limits with a backlog each in two workers, and a thousand in one that waits for slots."""
    yield many(100, "10/s")
    yield many(100, "2/s")
    yield at_rest()


def tenants() -> Iterator[dict[str, Any]]:
    """One bucket for each tenant: hundreds under one limit, and small ones beside a large one."""
    yield under_one()
    yield beside_a_large_one()


PARTS = {part.__name__: part for part in (rates, slow, fast, overhead, busy, instant_tasks, lone, many_limits, tenants)}


def commit() -> str:
    """What was measured; empty outside a checkout."""
    git = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(git, cwd=root(), capture_output=True, text=True, check=False).stdout.strip()


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    server = Redis().start()
    try:
        introduced: dict[str, Any] = server.client().info("server")
    finally:
        server.close()
    name = introduced.get("server_name", "redis").capitalize()
    cpuinfo = Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "", re.MULTILINE)
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "server": f"{name} {introduced.get('valkey_version', introduced['redis_version'])}",
        **{package: version(package) for package in ("celery", "kombu", "redis")},
    }


@click.command(context_settings={"max_content_width": 100})
@click.argument("parts", nargs=-1, type=click.Choice([*PARTS]))
@click.option("--draw", "is_drawing", is_flag=True, help="Measure nothing: draw what benchmarks/report.json holds.")
def main(parts: tuple[str, ...], is_drawing: bool) -> None:
    """Measure the PARTS that are named, or all, and draw; fails if a window exceeded its promise."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # servers and workers end with us
    report: dict[str, Any] = json.loads(REPORT.read_text()) if REPORT.exists() else {"commits": {}}
    kept = True
    begin = time.monotonic()
    if not is_drawing:
        report["machine"] = machine()
    for name in () if is_drawing else parts or PARTS:
        report[name], report["commits"][name] = [], commit()
        for cell in PARTS[name]():
            print(f"{(time.monotonic() - begin) / 60:4.1f} min  {name}: {cell.pop('text')}", flush=True)
            kept = kept and cell.get("here", {}).get("kept", True)
            report[name].append(cell)
            REPORT.write_text(json.dumps(report, indent=1) + "\n")
    draw(report)
    if not kept:
        raise click.ClickException("a window exceeded its promise")


if __name__ == "__main__":
    main()
