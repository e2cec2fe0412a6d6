"""Revoked and expired tasks whose result backend is away or slow, in real workers."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_global_rate.worker.dismissals import LONGEST_PAUSE_S, REST
from testbed.cluster import Cluster
from testbed.server import Redis
from testbed.windows import since, used

from ..conftest import Figures, Server

RATE = "20/s"
#: Tasks that are revoked, and as many that expire, while they are held and the backend is away for so long, in seconds.
COUNT, AWAY_S = 20, 10.0
#: And where no minutes are to be spent, in seconds.
SHORTLY_S = 4.0
#: How long it may take to store one of them, in seconds: SQLite waits for the disk.
STORED_S = {"redis": 0.02, "database": 0.05}


@contextlib.contextmanager
def backend_of(kind: str, directory: Path) -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """A result backend: its URL, and how it goes away (or becomes slow) and comes back."""
    if kind == "database":
        pytest.importorskip("sqlalchemy")
        home, elsewhere = directory / "results", directory / "away"
        home.mkdir()
        yield f"db+sqlite:///{home}/results.sqlite", lambda: home.rename(elsewhere), lambda: elsewhere.rename(home)
        shutil.rmtree(home)
        return
    server, slow = Redis(), directory / "slow"
    slow.write_text("")
    try:
        server.start()
        if kind == "slow":
            away, back = lambda: slow.write_text("2"), lambda: slow.write_text("")
            yield f"tests.apps.results:Slow+{server.url}/0", away, back
        else:
            yield f"{server.url}/0", server.stop, server.start
    finally:
        server.close()


@pytest.mark.parametrize(
    ("kind", "pool", "count", "away_s"),
    [
        pytest.param("redis", "prefork", COUNT, AWAY_S, marks=pytest.mark.long),
        pytest.param("redis", "gevent", COUNT, AWAY_S, marks=pytest.mark.long),
        pytest.param("database", "prefork", COUNT, AWAY_S, marks=pytest.mark.long),
        pytest.param("redis", "prefork", 5, SHORTLY_S, marks=pytest.mark.slow, id="redis-shortly"),
        pytest.param("database", "prefork", 5, SHORTLY_S, marks=pytest.mark.slow, id="database-shortly"),
    ],
)
def test_a_result_backend_that_is_away_stops_nothing(
    empty_redis: Server, figures: Figures, tmp_path: Path, kind: str, pool: str, count: int, away_s: float
) -> None:
    """Some held tasks are revoked and as many expire while it is away, for ten seconds or four.

    Another limit has its rate (a busy machine may miss two slots of 200, four of 80), commands are answered, tasks
    without a limit start, and the worker keeps its broker. The error has one line in the log; what Celery logs of its
    own attempts to revoke them is not counted. Once the backend is back, each is announced and acknowledged once, after
    the longest pause and, for each of them, the time to store it and four times as long left to others.
    """
    with backend_of(kind, tmp_path) as (url, away, back), held_by(empty_redis, url) as cluster:
        revoked = start(cluster, count, pool, limited=int(20 * (away_s + 4)), expires_s=away_s / 2)
        away()
        revoke(cluster, revoked)
        said = len(cluster.log("w0"))
        begin = time.monotonic()
        cluster.send("free", 5, ignore_result=True)
        replies = [cluster.app.control.ping(timeout=1, limit=1) for _ in range(3)]
        time.sleep(max(0.0, begin + away_s - time.monotonic()))
        end = time.monotonic()
        early = len(cluster.records("revoked"))
        back()
        back_s = LONGEST_PAUSE_S + 2 * count * (1 + REST) * STORED_S[kind]
        cluster.wait_for(2 * count, back_s + 5, kind="revoked", task="late")
        took_s = max(cluster.instants("revoked", "late")) - end
        cluster.wait(lambda: not empty_redis.client().hlen("unacked"), 30)
        announced = Counter(record.task_id for record in cluster.records("revoked"))
        starts, free = cluster.instants("start"), cluster.instants("start", "free")
        parted, log = cluster.records("parted"), cluster.log("w0")[said:]
    share = used(starts, 1 / 20, begin, end)
    lines = log.count("global-rate: ")
    attempts = log.count("Failed operation")
    figures(
        f"{kind}, {pool}, away for {away_s:g} s: {share:.4f} of the slots beside it, {lines} lines in the log and "
        f"{attempts} of Celery's, gone {took_s:.2f} s after"
    )

    assert early == 0
    assert set(announced.values()) == {1}
    assert took_s <= back_s
    assert (0.99 if away_s == AWAY_S else 0.95) <= share <= 1.02
    assert all(replies)
    assert len(free) == 5
    assert max(free) - begin <= 1
    assert parted == []
    assert lines <= 2
    assert attempts <= 3


@pytest.mark.long
def test_a_slow_result_backend_slows_the_others_by_a_fifth(
    empty_redis: Server, figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seconds for each of four: the loop stands still for two seconds, four times, and has eight between them.

    Stock Celery stands still for all of them in a row. A slot that falls due meanwhile is missed: 0.8 are left, and at
    the edges of the watch a call more or less.
    """
    monkeypatch.setenv("GLOBAL_RATE_SLOW", str(tmp_path / "slow"))
    with backend_of("slow", tmp_path) as (url, away, _), held_by(empty_redis, url) as cluster:
        revoked = start(cluster, 2, "prefork", limited=900)
        away()
        revoke(cluster, revoked)
        begin = time.monotonic()
        cluster.wait_for(4, 60, kind="revoked", task="late")
        end = time.monotonic()
        starts = since(cluster.instants("start"), begin, end)
    gaps = sorted(later - earlier for earlier, later in zip(starts, starts[1:]))
    share = len(starts) / 20 / (end - begin)
    figures(f"2 s for each of four: {share:.3f} of the slots in {end - begin:.0f} s, longest gap {gaps[-1]:.2f} s")

    assert 24 <= end - begin <= 45
    assert share >= 0.7
    assert gaps[-1] <= 2.5
    assert gaps[-5] <= 0.5


def held_by(server: Server, results: str) -> Cluster:
    """Workers that hold tasks at 1/h which store their results."""
    conf: dict[str, Any] = {
        "result_backend": results,
        "task_annotations": {"late": {"rate_limit": "1/h", "ignore_result": False}},
        "global_rate_max_held": 1000,
    }
    cluster = Cluster(f"{server.url}/0", f"{server.url}/1", RATE, conf=conf, lifelines=True)
    cluster.app.conf.result_backend = None  # what sends tasks would wait for it, before Celery 5.7
    return cluster


def start(cluster: Cluster, count: int, pool: str, limited: int = 400, expires_s: float = 4.0) -> list[str]:
    """A worker with tasks to be revoked, whose ids are returned, and others that expire in a moment, under load."""
    cluster.start(1, pool=pool, concurrency=4, options=("-I", "tests.apps.results"))
    cluster.send("late", ignore_result=True)
    cluster.wait_for(1, 10, task="late")
    revoked = cluster.send("late", count)
    cluster.send("late", count, expires=expires_s)
    cluster.send("limited", limited, ignore_result=True)
    cluster.wait_for(1 + 2 * count, 10, kind="received", task="late")
    cluster.wait_for(10, 10)
    return revoked


def revoke(cluster: Cluster, ids: list[str]) -> None:
    """Celery itself, before it answers the next command, may store each of them in the event loop, or try to."""
    cluster.app.control.revoke(ids)
    assert cluster.app.control.ping(timeout=20, limit=1)
