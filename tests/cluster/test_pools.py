"""Every pool and every kind of transport, on real workers: what has no event loop, and what changes its size."""

from __future__ import annotations

import itertools
import time
from contextlib import AbstractContextManager, nullcontext

import pytest

from celery_global_rate.limits.limit import Limit
from testbed.cluster import Cluster
from testbed.meanwhile import meanwhile
from testbed.scenarios import backlog, judge, script_calls
from testbed.stalls import stalls_of

from ..conftest import Figures, Server

GREEN = ["gevent", "eventlet"]


@pytest.mark.parametrize("broker", ["redis", pytest.param("rabbitmq", marks=pytest.mark.long)])
@pytest.mark.parametrize("pool", GREEN)
def test_greenlets(
    request: pytest.FixtureRequest, empty_redis: Server, figures: Figures, pool: str, broker: str
) -> None:
    """Two workers of 10 greenlets at 100/s: 0.99 of the slots, or what stalls leave of them; every window as promised.

    J is the longest delay of all tasks: what keeps a greenlet waiting is another one, which few unlimited tasks meet.
    """
    pytest.importorskip(pool)
    url = request.getfixturevalue("rabbitmq") if broker == "rabbitmq" else f"{empty_redis.url}/0"
    with Cluster(url, f"{empty_redis.url}/1", "100/s") as cluster, stalls_of(cluster, empty_redis) as stalls:
        run = backlog(cluster, empty_redis.client(), 2, 8, delayed=None, stalls=stalls, pool=pool, concurrency=10)
    figures(f"{pool} on {broker}: {run}")

    assert run.kept
    assert 0.99 - run.stalled <= run.used <= 1.005


@pytest.mark.long
def test_stock_greenlets_do_neither(empty_redis: Server, figures: Figures) -> None:
    """The same load on stock Celery: each worker by itself, and far from its rate."""
    pytest.importorskip("gevent")
    with Cluster(f"{empty_redis.url}/0", None, "100/s", extension=False) as cluster:
        run = backlog(cluster, empty_redis.client(), 2, 8, pool="gevent", concurrency=10)
    figures(f"stock gevent on redis: {run}")

    assert run.used < 0.9
    assert not run.kept


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.long)])
def test_a_transport_without_event_loop(empty_redis: Server, figures: Figures, pool: str) -> None:
    """Messages in files, two workers at 20/s: 0.99 of the slots, every window within the promise.

    That is all but one of 160. A stall of the machine may take three: ``H + T`` (`Stalls.most`).
    """
    limiter = f"{empty_redis.url}/1"
    with Cluster("filesystem://", limiter, "20/s") as cluster, stalls_of(cluster, empty_redis) as stalls:
        run = backlog(cluster, empty_redis.client(), 2, 8, stalls=stalls, pool=pool)
    figures(f"{pool} on files: {run}")

    assert run.kept
    assert 0.99 - run.stalled <= run.used <= 1.005


def resizing(cluster: Cluster) -> AbstractContextManager[None]:
    """Grow and shrink every pool by one, in turn, each second."""
    resize = itertools.cycle([cluster.app.control.pool_grow, cluster.app.control.pool_shrink])
    return meanwhile(lambda: next(resize)(1), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "options", "rate", "run_time_s", "least"),
    [
        ("autoscale 1 to 8", ["--autoscale=8,1"], "50/s", 0.05, 0.98),
        pytest.param(
            "5 tasks a process", ["--max-tasks-per-child=5", "-c", "8"], "50/s", 0.0, 0.7, marks=pytest.mark.long
        ),
        pytest.param("grow and shrink", [], "50/s", 0.05, 0.96, marks=pytest.mark.long),
    ],
)
def test_a_pool_that_changes(
    empty_redis: Server, figures: Figures, what: str, options: list[str], rate: str, run_time_s: float, least: float
) -> None:
    """10 s within the promise, with most slots used, and afterwards the prefetch count is Celery's own.

    With tasks of 50 ms a worker that could not grow beyond one process would do 20/s. Celery's loop stands still while
    it forks: growing every second costs up to two of 100 slots. Ten processes a second that are replaced keep two cores
    busy all at once, since they all began at once; some wait for seconds to be let go by Celery, with a task already
    theirs. That costs slots: seven in ten are the least. The pool's delay J is that of all tasks: too few unlimited
    ones meet a process that was forked a moment ago and begins its first task some 30 ms after its release.
    """
    limit = Limit.parse(rate)
    assert limit is not None
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", rate) as cluster:
        client = empty_redis.client()
        cluster.start(1, concurrency=4, options=options)
        for _ in range(int(limit.per_second * 16) // 10):
            cluster.send("limited", 10, args=[run_time_s])
            cluster.send("free")  # to measure the pool's own delay
        cluster.wait_for(40, 20)
        begin, calls = time.monotonic(), script_calls(client)
        with resizing(cluster) if what == "grow and shrink" else nullcontext():
            time.sleep(10)
        end = time.monotonic()
        calls = script_calls(client) - calls
        cluster.wait_for(int(limit.per_second * 16) // 10 * 10, 60)
        run = judge(cluster, limit, 1, begin, end, calls, delayed=None)
        cluster.wait(lambda: cluster.stats()["w0"]["held"] == 0, 5)
        stats = (cluster.app.control.inspect(timeout=2).stats() or {})["w0@lab"]
    own = 4 * stats.get("autoscaler", {}).get("max", len(stats["pool"]["processes"]))
    figures(f"{what}: {run}; prefetch count {stats['prefetch_count']} afterwards, Celery's own is {own}")

    assert run.kept
    assert least <= run.used <= 1.005
    assert stats["prefetch_count"] == own
