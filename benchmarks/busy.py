"""A pool that is busy, on real workers: against what stock Celery without a limit starts, side by side."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery_global_rate.limits.limit import Limit
from testbed.cluster import Cluster
from testbed.scenarios import script_calls
from testbed.server import Redis
from testbed.windows import excess, since

#: Limits, as shares of what the pool does without one; the first is out of reach.
SHARES = (None, 1.05, 0.95, 0.8, 0.5)
SETTLE_S = 1.5
WATCH_S = 4.0
FAR = 100_000.0


@dataclass(frozen=True)
class Load:
    """Tasks that take equally long, in a pool of so many processes or greenlets in each of the workers."""

    run_time_s: float
    processes: int
    workers: int = 1
    pool: str = "prefork"

    def __str__(self) -> str:
        return f"{self.pool} {self.run_time_s * 1000:.0f} ms x {self.processes} x {self.workers}"


LOADS = [
    *(Load(0.005, 8), Load(0.02, 8), Load(0.05, 16, 2), Load(0.1, 32, 2), Load(0.3, 8), Load(1.0, 8, 2)),
    *(Load(0.02, 8, pool="threads"), Load(0.05, 32, pool="gevent"), Load(0.05, 32, pool="eventlet")),
]


def cpu_s(cluster: Cluster) -> float:
    """Processor time of all workers with their processes, in seconds."""
    leaders = {str(worker.pid) for worker in cluster.workers.values()}
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] in leaders:  # its session
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def watch(cluster: Cluster, seconds: float) -> tuple[float, float, float, float]:
    """Watch for some seconds: begin and end (monotonic), starts a second, and processor time per start, in seconds."""
    cpu, begin = cpu_s(cluster), time.monotonic()
    time.sleep(seconds)
    cpu, end = cpu_s(cluster) - cpu, time.monotonic()
    starts = len(since(cluster.instants("start"), begin, end))
    return begin, end, starts / (end - begin), cpu / max(1, starts)


def fresh_servers(stack: ExitStack) -> tuple[Redis, Redis]:
    """One for the broker and one for the limits."""
    broker, limiter = Redis(), Redis()
    for server in (broker, limiter):
        stack.callback(server.close)
        server.start()
    return broker, limiter


def cluster_of(stack: ExitStack, load: Load, rate: str | None, watches: int = 1) -> tuple[Cluster, Redis]:
    """A backlog for so many watches, and workers on it."""
    broker, limiter = fresh_servers(stack)
    cluster = stack.enter_context(Cluster(broker.url, limiter.url, rate, extension=rate is not None))
    seconds = watches * (SETTLE_S + WATCH_S) + 1
    most = min(load.processes * load.workers / max(load.run_time_s, 1e-6), 2500.0)
    cluster.send("limited", int(most * seconds) + 100, args=[load.run_time_s])
    cluster.start(load.workers, pool=load.pool, concurrency=load.processes)
    return cluster, limiter


def compare(load: Load) -> Iterator[dict[str, Any]]:
    """Stock Celery without a limit, and then one limit after the other on the same workers."""
    with ExitStack() as stack:
        cluster, _ = cluster_of(stack, load, None)
        time.sleep(SETTLE_S)
        *_, stock, stock_cpu = watch(cluster, WATCH_S)
    with ExitStack() as stack:
        cluster, limiter = cluster_of(stack, load, f"{FAR:.0f}/s", len(SHARES))
        for share in SHARES:
            rate = FAR if share is None else share * stock
            if share is not None:
                cluster.app.control.rate_limit("limited", f"{rate:.3f}/s")
            time.sleep(SETTLE_S)
            calls = script_calls(limiter.client())
            begin, end, starts, cpu = watch(cluster, WATCH_S)
            calls = script_calls(limiter.client()) - calls
            limit = Limit.parse(f"{rate:.3f}/s")
            assert limit is not None
            uncertainty_ms = max(
                (worker.get("widest_clock_uncertainty_ms") or 0 for worker in cluster.stats().values()), default=0
            )
            worst = excess(
                since(cluster.instants("release"), begin, end),
                limit.interval_s,
                1,
                limit.grace_s + uncertainty_ms / 1e3,
            )
            ratio = starts / min(rate, stock)
            of_rate = "out of reach" if share is None else f"{share} of the pool"
            text = (
                f"{load}, {of_rate}: {ratio:.3f} ({starts:.0f} of {min(rate, stock):.0f}/s), "
                f"worst window {worst:+.2f}, "
                f"{calls / (end - begin) / load.workers:.0f} calls/s per worker, "
                f"{calls / (end - begin) / max(starts, 1):.2f} a start, CPU per start {cpu / stock_cpu:.2f} of stock"
            )
            yield {"load": str(load), "share": share, "ratio": ratio, "excess": worst, "text": text}


def instant(processes: int, pairs: int = 5, seconds: float = WATCH_S) -> dict[str, Any]:
    """Tasks that take no time under a limit out of reach, against stock Celery without one, in turn."""
    ratios, costs = [], []
    order = [f"{FAR:.0f}/s", None]
    for _ in range(pairs):
        figures = {}
        for rate in order:
            with ExitStack() as stack:
                cluster, _ = cluster_of(stack, Load(0.0, processes), rate)
                time.sleep(SETTLE_S)
                figures[rate] = watch(cluster, seconds)[2:]
        order.reverse()  # a machine that becomes slower meanwhile strikes both
        (here, here_cpu), (stock, stock_cpu) = figures[f"{FAR:.0f}/s"], figures[None]
        ratios.append(here / stock)
        costs.append(here_cpu / stock_cpu)
    ratio, cost = statistics.median(ratios), statistics.median(costs)
    text = (
        f"instant tasks, -c {processes}: {ratio:.3f} of stock ({min(ratios):.3f} to {max(ratios):.3f}), CPU per start "
        f"{cost:.3f} of stock ({min(costs):.3f} to {max(costs):.3f}), median of {pairs} pairs"
    )
    return {"processes": processes, "ratios": ratios, "costs": costs, "text": text}


def latency(rate: str | None, tasks: int = 200, apart_s: float = 0.03) -> list[float]:
    """How long lone tasks take from being sent to their first line, in seconds, sorted."""
    with ExitStack() as stack:
        server = Redis()
        stack.callback(server.close)
        server.start()
        cluster = stack.enter_context(Cluster(f"{server.url}/0", f"{server.url}/1", rate, extension=rate is not None))
        cluster.start(1)
        cluster.send("limited", 20)
        cluster.wait_for(20, 20)
        sent = {}
        for _ in range(tasks):
            time.sleep(apart_s)
            begin = time.monotonic()
            sent[cluster.send("limited")[0]] = begin
        cluster.wait_for(20 + tasks, 20)
        starts = {record.task_id: record.instant for record in cluster.records("start", "limited")}
        return sorted(starts[task] - begin for task, begin in sent.items())
