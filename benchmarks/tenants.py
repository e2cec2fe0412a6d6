"""One limit for each tenant, on real workers: hundreds of them under one limit, and small ones beside a large one."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from testbed.cluster import Cluster
from testbed.scenarios import script_calls
from testbed.server import Redis
from testbed.windows import jain, percentile, since, used

from .busy import fresh_servers
from .many import reads

TENANT = {"rate": "5/s", "tasks": ["free"], "key": "headers.tenant"}
SETTLE_S = 5.0


def cluster_of(stack: ExitStack, buckets: dict[str, Any], max_held: int) -> tuple[Cluster, Redis]:
    """A cluster whose task `free` has these named buckets."""
    broker, limiter = fresh_servers(stack)
    conf = {"global_rate_buckets": buckets, "global_rate_max_held": max_held}
    return stack.enter_context(Cluster(broker.url, limiter.url, conf=conf)), limiter


def send(cluster: Cluster, tenant: str, count: int = 1) -> list[str]:
    """Tasks of a tenant; returns their ids."""
    return cluster.send("free", count, headers={"tenant": tenant})


def under_one(tenants: int = 500, workers: int = 4, seconds: float = 60.0) -> dict[str, Any]:
    """So many tenants at 5/s each under one limit of 200/s, all with a backlog."""
    with ExitStack() as stack:
        buckets = {"tenant": TENANT, "api": {"rate": "200/s", "tasks": ["free"]}}
        cluster, limiter = cluster_of(stack, buckets, 100_000)
        tenant_of = {}
        for _ in range(int(1.3 * 200 * (seconds + 2 * SETTLE_S) / tenants) + 3):
            for number in range(tenants):
                tenant_of.update(dict.fromkeys(send(cluster, f"t{number}"), number))
        cluster.start(workers)
        time.sleep(SETTLE_S)
        begin, writes, calls = time.monotonic(), reads(limiter), script_calls(limiter.client())
        time.sleep(seconds)
        end, writes, calls = time.monotonic(), reads(limiter) - writes, script_calls(limiter.client()) - calls
        time.sleep(0.5)
        starts = [record for record in cluster.records("start") if begin <= record.instant < end]
        shares = Counter(tenant_of[record.task_id] for record in starts)
        share = used(sorted(record.instant for record in starts), 1 / 200, begin, end)
        fairness = jain([shares[number] for number in range(tenants)])
        writes_per_s, calls_per_start = writes / seconds / workers, calls / max(1, len(starts))
        return {
            "tenants": tenants,
            "used": share,
            "jain": fairness,
            "writes_per_s": writes_per_s,
            "calls_per_start": calls_per_start,
            "text": f"{tenants} tenants of 5/s under 200/s, {workers} workers: {share:.4f} of the slots used, "
            f"Jain {fairness:.4f}, {writes_per_s:.0f} writes/s per worker, {calls_per_start:.1f} calls a start",
        }


def beside_a_large_one(tenants: int = 1000, workers: int = 4, seconds: float = 20.0) -> dict[str, Any]:
    """5000 tasks of one tenant wait; others send one task now and then."""
    with ExitStack() as stack:
        cluster, limiter = cluster_of(stack, {"tenant": TENANT}, 6000)
        large = set(send(cluster, "large", 5000))
        cluster.start(workers)
        cluster.wait(lambda: sum(it["held"] for it in cluster.stats().values()) > 4800, 60)
        chance, sent = random.Random(1), {}
        begin, calls = time.monotonic(), script_calls(limiter.client())
        while (now := time.monotonic()) < begin + seconds:
            sent.update(dict.fromkeys(send(cluster, f"t{chance.randrange(tenants)}"), now))
            time.sleep(0.02)
        time.sleep(1.0)
        calls = script_calls(limiter.client()) - calls
        starts = {record.task_id: record.instant for record in cluster.records("start")}
        waits_s = [starts.get(task, float("inf")) - at for task, at in sent.items()]
        of_large = since(sorted(at for task, at in starts.items() if task in large), begin, begin + seconds)
        large_per_s, calls_per_start = len(of_large) / seconds, calls / (len(sent) + len(of_large))
        return {
            "tenants": tenants,
            "small_p99_s": percentile(waits_s, 0.99),
            "small_longest_s": max(waits_s),
            "large_per_s": large_per_s,
            "calls_per_start": calls_per_start,
            "text": f"a tenant with 5000 waiting has {large_per_s:.2f}/s of its 5/s; tasks of {tenants} others start "
            f"after {percentile(waits_s, 0.5) * 1000:.0f} ms (p50), {percentile(waits_s, 0.99) * 1000:.0f} ms (p99), "
            f"{max(waits_s) * 1000:.0f} ms at the most; {calls_per_start:.1f} calls a start",
        }
