"""On, off and on again: stock limits return, nothing of ours is in the way, and nothing is lost."""

from __future__ import annotations

import time

import pytest

from celery_global_rate.limits.limit import Limit
from testbed.cluster import Cluster
from testbed.windows import excess

from ..conftest import Figures, Server

#: Settings that stay behind in the application's code.
LEFT_BEHIND = {"global_rate_url": "redis://127.0.0.1:1/0", "global_rate_max_held": 7}
#: What the last worker of a limit leaves is gone when its bucket is full again and nobody waits any more, in seconds.
LONGEST_TTL_S = 60


@pytest.mark.long
def test_on_off_and_on_again(empty_redis: Server, figures: Figures) -> None:
    """Four workers at 7/s on one backlog, with the extension, without it, and with it again, 5 s each.

    With it all of them together keep the promise. Without it each of them counts by itself: at least one window holds
    more than the promise allows one limit, and their settings and attributes of ours (``rate_burst`` too) hinder
    nobody. Every task runs once. What is left in Redis expires by itself.
    """
    limit = Limit.parse("7/s", 2)
    assert limit is not None
    rates, excesses, running = [], [], []
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", "7/s", burst=2) as cluster:
        ids = cluster.send("limited", 600)
        for is_on in (True, False, True):
            names = cluster.start(4, extension=is_on, conf=None if is_on else LEFT_BEHIND)
            begin = time.monotonic()
            time.sleep(5)
            end = time.monotonic()
            worker_stats = cluster.app.control.inspect(timeout=2, limit=4).stats() or {}
            running.append([("global_rate" in stats) for stats in worker_stats.values()])
            for name in names:
                cluster.workers[name].terminate()
            for name in names:
                cluster.workers[name].wait(60)
            starts = [instant for instant in cluster.instants("release") if begin <= instant < end]
            rates.append(len(starts) / (end - begin))
            excesses.append(excess(starts, limit.interval_s, limit.burst, limit.grace_s + 0.01))
            if is_on:
                limits = empty_redis.client(1)
                left = {key: limits.ttl(key) for key in limits.scan_iter("{global-rate:v1:lab}:*")}
                assert left
                assert all(0 <= ttl <= LONGEST_TTL_S for ttl in left.values()), left
        cluster.start(1, extension=False, conf={**LEFT_BEHIND, "worker_disable_rate_limits": True})
        cluster.wait(lambda: {record.task_id for record in cluster.records("start")} >= set(ids), 30)
        started = [record.task_id for record in cluster.records("start")]
    words = ", ".join(f"{rate:.1f}/s ({over:+.1f})" for rate, over in zip(rates, excesses))
    figures(f"7/s with 4 workers, on, off and on: {words} against the promise; {len(started)} starts of 600 tasks")

    assert running == [[True] * 4, [False] * 4, [True] * 4]
    assert excesses[0] <= 0
    assert excesses[1] > 0
    assert excesses[2] <= 0
    assert min(rates[0], rates[2]) >= 0.97 * 7
    assert sorted(started) == sorted(ids)
