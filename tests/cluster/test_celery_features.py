"""What Celery users do with tasks, on real workers: ETA, bursts, revokes, chords, other tasks beside the limited."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import celery
import pytest

from celery_global_rate.limits.limit import Limit
from testbed.cluster import Cluster
from testbed.scenarios import judge
from testbed.windows import excess

from ..conftest import KNOWS_QUORUM_QUEUES, QUORUM, Figures, Server
from ..storage.wire import NOISE_S

KNOWS_ETA_LIMIT = pytest.mark.skipif(celery.__version__ < "5.6", reason="a setting of Celery 5.6 and newer")
#: Whether the extension is on.
HERE_AND_STOCK = [pytest.param(True, id="here"), pytest.param(False, id="stock", marks=pytest.mark.long)]


def cluster_on(server: Server, rate: str | None, **more: Any) -> Cluster:
    return Cluster(f"{server.url}/0", f"{server.url}/1", rate, **more)


def test_eta_tasks_with_a_hundred_other_timers(empty_redis: Server, figures: Figures) -> None:
    """550 limited tasks with an ETA at 50/s, and 100 ETA tasks without a limit that come due in one moment.

    kombu's loop fires ten timers a turn and then sleeps for up to a second; the extension must not sleep with it. The
    100 tasks fill both processes for 0.06 to 0.15 s (Python 3.13 to 3.9), in which 3 to 8 of the 500 slots find no free
    process; two more are for noise. A sleep of a second would cost 50, in the middle or at the start.
    """
    limit = Limit.parse("50/s")
    assert limit is not None
    with cluster_on(empty_redis, "50/s") as cluster:
        cluster.start(1)
        eta = datetime.now(timezone.utc) + timedelta(seconds=2)
        due = time.monotonic() + 2
        cluster.send("limited", 550, eta=eta)
        cluster.send("free", 100, eta=eta + timedelta(seconds=3))
        cluster.wait_for(550, 30)
        run = judge(cluster, limit, 1, due + 0.2, due + 10.2, 0)
        first = cluster.instants("start")[0]
    figures(f"ETA beside 100 timers due at once: {run}")

    assert first >= due - 0.01
    assert run.kept
    assert 0.98 <= run.used <= 1.005
    assert run.starts >= 490


@pytest.mark.slow
def test_a_burst_after_idling(empty_redis: Server, figures: Figures) -> None:
    """`rate_burst` 50 at 100/s: after 5 s of nothing 50 at once, then 100/s.

    The first 50 slots lie in the past and are due at once; 25 more fall due in the next quarter second. Processes need
    some milliseconds for a task, and a machine short of cores gets no further than that: of these 75 at least 40 start
    in that time, where without a burst it would be 25. All 250 are due after 2.0 s, of which D and J may save 0.1 s;
    with the fewest of the first quarter second the other 210 take 2.1 s more.
    """
    limit = Limit.parse("100/s", 50)
    assert limit is not None
    with cluster_on(empty_redis, "100/s", burst=50) as cluster:
        cluster.start(2, concurrency=4)
        cluster.send("limited", 20)
        cluster.wait_for(20, 10)
        time.sleep(5)
        before = time.monotonic()
        cluster.send("limited", 250)
        cluster.wait_for(270, 20)
        starts = [instant for instant in cluster.instants("start") if instant >= before]
        run = judge(cluster, limit, 2, before, starts[-1], 0)
    in_a_row = sum(instant < starts[0] + 0.25 for instant in starts)
    figures(f"burst 50 at 100/s: {in_a_row} starts in the first 0.25 s, 250 in {starts[-1] - starts[0]:.2f} s")

    assert run.release_excess <= 0
    assert 40 <= in_a_row <= 50 + 25 + 5
    assert 1.9 <= starts[-1] - starts[0] <= 0.25 + 2.1 + NOISE_S


@pytest.mark.slow
@pytest.mark.parametrize("extension", HERE_AND_STOCK)
def test_no_burst_when_a_busy_pool_frees_up(empty_redis: Server, figures: Figures, extension: bool) -> None:
    """All processes busy for 4 s, 8 tasks at 2/s waiting: afterwards starts are 0.5 s apart (stock: all at once).

    A start follows its slot by D + R + J at most, so two are at least T - D - R - J apart: 0.5 - 0.05 - noise.
    """
    with cluster_on(empty_redis, "2/s", extension=extension) as cluster:
        cluster.start(1)
        cluster.send("free", 2, args=[4.0])
        cluster.wait_for(2, 10, task="free")
        cluster.send("limited", 8)
        cluster.wait_for(8, 20)
        starts = cluster.instants("start")
    gaps = [later - earlier for earlier, later in zip(starts, starts[1:])]
    figures(f"{'here' if extension else 'stock'}, after 4 s of busy processes: gaps {[round(gap, 2) for gap in gaps]}")

    if extension:
        assert min(gaps) >= 0.4
        assert max(gaps) <= 0.6
    else:
        assert max(gaps) < 0.1


@pytest.mark.parametrize("extension", HERE_AND_STOCK)
@pytest.mark.parametrize(
    ("broker", "conf"),
    [
        pytest.param("redis", {}, id="redis"),
        pytest.param("rabbitmq", {}, id="rabbitmq"),
        pytest.param("rabbitmq", QUORUM, id="quorum", marks=KNOWS_QUORUM_QUEUES),
        pytest.param("redis", {"worker_prefetch_multiplier": 1}, id="multiplier 1"),
        pytest.param("redis", {"worker_eta_task_limit": 10}, id="eta limit", marks=KNOWS_ETA_LIMIT),
        pytest.param("redis", {"worker_disable_prefetch": True}, id="no prefetch", marks=KNOWS_ETA_LIMIT),
    ],
)
def test_other_tasks_behind_held_ones(
    request: pytest.FixtureRequest,
    empty_redis: Server,
    figures: Figures,
    broker: str,
    conf: dict[str, object],
    extension: bool,
) -> None:
    """50 tasks at 1/m, then 20 without a limit in the same queue, one worker: they start at once (stock: never).

    In a quorum queue too, whose consumers keep the window that they began with, as on RabbitMQ 4 they do in all queues.
    """
    url = f"{empty_redis.url}/0" if broker == "redis" else request.getfixturevalue("rabbitmq")
    limiter = f"{empty_redis.url}/1"
    with Cluster(url, limiter, "1/m", extension=extension, conf=conf) as cluster:
        cluster.send("limited", 50)
        cluster.send("free", 20)
        cluster.start(1)
        ready = time.monotonic()
        if extension:
            cluster.wait_for(20, 10, task="free")
        else:
            time.sleep(5)
        started = cluster.instants("start", "free")
    last = f"{started[-1] - ready:.2f} s after the worker was ready" if started else "never"
    where = f"{broker} {conf or ''}, {'here' if extension else 'stock'}"
    figures(f"{where}: {len(started)} of 20 unlimited tasks started, the last {last}")

    assert len(started) == (20 if extension else 0)
    if extension:
        assert started[-1] - ready <= 2


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.long)])
def test_unlimited_tasks_that_fill_the_pool_leave_limited_ones_their_turn(
    empty_redis: Server, figures: Figures, pool: str
) -> None:
    """A backlog of unlimited tasks of 0.1 s keeps both processes busy for 15 s, with 45 tasks at 2/s among them.

    A limited task lines up when its slot is near, so two starts are an interval and a line apart at the most: 0.5 s,
    and at most ten others of 0.1 s on two processes. That is one a second; before, it was none.
    """
    with cluster_on(empty_redis, "2/s") as cluster:
        for _ in range(15):
            cluster.send("free", 20, args=[0.1])
            cluster.send("limited", 3)
        cluster.start(1, pool=pool)
        cluster.wait_for(1, 10, task="free")
        begin = time.monotonic()
        time.sleep(10)
        end = time.monotonic()
        starts = [instant for instant in cluster.instants("start") if begin <= instant < end]
        others = [instant for instant in cluster.instants("start", "free") if begin <= instant < end]
        releases = cluster.instants("release")
    figures(f"{pool}: {len(starts) / 10:.1f} of 2 limited starts a second beside {len(others) / 10:.1f} unlimited ones")

    assert 8 <= len(starts) <= 21
    assert len(starts) + len(others) >= 0.85 * 20 * 10
    assert excess(releases, 0.5, 1, 0.05 + 0.02) <= 0


def test_the_prefetch_count_comes_back(empty_redis: Server) -> None:
    """After holding and releasing, the worker's prefetch is what Celery gave it."""
    with cluster_on(empty_redis, "100/s") as cluster:
        cluster.start(1)
        before = cluster.app.control.inspect(timeout=2).stats()["w0@lab"]["prefetch_count"]
        for _ in range(3):
            cluster.send("limited", 60)
            cluster.wait_for(60, 10)
        cluster.wait_for(180, 10)
        cluster.wait(lambda: cluster.stats()["w0"]["held"] == 0, 5)
        after = cluster.app.control.inspect(timeout=2).stats()["w0@lab"]["prefetch_count"]

    assert before == after == 8


def test_control_rate_limit(empty_redis: Server, figures: Figures) -> None:
    """Held tasks follow `control rate_limit` at once; the same limit ten times is the same limit; 0 releases all."""
    with cluster_on(empty_redis, "1/h") as cluster:
        cluster.send("limited", 260)
        cluster.start(2)
        cluster.wait_for(1, 10)
        time.sleep(1)
        held_back = len(cluster.instants("start"))
        changed = time.monotonic()
        replies = cluster.app.control.rate_limit("limited", "20/s", reply=True, timeout=2)
        for _ in range(20):
            time.sleep(0.1)
            cluster.app.control.rate_limit("limited", "20/s")
        end = time.monotonic()
        starts = [instant for instant in cluster.instants("start") if instant > changed]
        refused = cluster.app.control.rate_limit("limited", "-5/s", reply=True, timeout=2)
        unknown_period = cluster.app.control.rate_limit("limited", "10/x", reply=True, timeout=2)
        cluster.app.control.rate_limit("limited", "0")
        released = time.monotonic()
        cluster.wait_for(260, 10)
        took = cluster.instants("start")[-1] - released
    rate = len(starts) / (end - changed)
    figures(
        f"1/h to 20/s: first start after {starts[0] - changed:.3f} s, then {rate:.1f}/s; 0 releases in {took:.2f} s"
    )

    assert held_back == 1
    assert all(reply["ok"].startswith("new rate limit set ") for each in replies for reply in each.values())
    assert starts[0] - changed <= 0.25
    assert excess(starts, 1 / 20, 1, 0.025 + 0.02) <= 0
    assert all("is negative" in reply["error"] for each in refused for reply in each.values())
    assert all("cannot be read" in reply["error"] for each in unknown_period for reply in each.values())
    assert took <= 3


@pytest.mark.slow
def test_revoked_and_expired_tasks_spend_no_slot(empty_redis: Server, figures: Figures) -> None:
    """At 1/s: two live tasks with three revoked and one expired between them start 1 s apart (stock: 5 s)."""
    with cluster_on(empty_redis, "1/s") as cluster:
        cluster.start(1)
        cluster.send("limited")
        revoked = cluster.send("limited", 3)
        cluster.send("limited", 1, expires=0.3)
        last = cluster.send("limited")
        cluster.app.control.revoke(revoked)
        cluster.wait_for(2, 15)
        time.sleep(1.5)
        starts = cluster.records("start")
    figures(
        f"three revoked and one expired between two live tasks at 1/s: {starts[1].instant - starts[0].instant:.2f} s"
    )

    assert [record.task_id for record in starts][1:] == last
    assert 0.85 <= starts[1].instant - starts[0].instant <= 1.2


@pytest.mark.slow
def test_time_limits_count_from_the_start(empty_redis: Server) -> None:
    """A task with a hard limit of 1 s that was held for 2 s runs for its 0.3 s and succeeds."""
    with cluster_on(empty_redis, "30/m", loglevel="INFO") as cluster:
        cluster.start(1)
        cluster.send("limited", 2, args=[0.3], time_limit=1)
        cluster.wait_for(2, 10)
        cluster.wait(lambda: cluster.log("w0").count("succeeded") == 2, 5)
        log = cluster.log("w0")

    assert "TimeLimitExceeded" not in log
