"""Limits in a Redis Cluster: real nodes, real failovers, a slot that moves while it is used."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.override import set_limits
from celery_global_rate.limits.reservation import Reservation
from celery_global_rate.limits.timing import HORIZON_S
from celery_global_rate.settings import Settings
from celery_global_rate.storage.blocking_store import BlockingStore
from celery_global_rate.storage.cluster import SlotLostError
from celery_global_rate.storage.scripts import RESERVE, reserve_call
from testbed.cluster import Cluster
from testbed.meanwhile import wait
from testbed.proxy import Proxy
from testbed.redis_cluster import FORMED_S, Node, RedisCluster, Watch, free_pairs, takes_writes
from testbed.scenarios import WARM_UP_S, Run, backlog, judge
from testbed.server import free_port, redis_binary
from testbed.stalls import stalls_of
from testbed.windows import excess

from ..conftest import Figures, Server
from ..storage.wire import Wire
from .operator import check

#: What starts by a share of the limit is not what these tests count.
HOLDS = {"global_rate_on_outage": "hold"}
LIMIT = Limit.parse("100/s")
#: Of the workers' application, and a key in the slot of their limits that is not theirs.
PREFIX = "global-rate:v1:lab"
KEY = f"{{{PREFIX}}}:probe"
#: The bar: how long after the topology has settled all slots are used again.
RECOVERY_S = 1.0
#: By its news: a look for what was missed is made in five seconds.
HEARD_S = 1.0
#: Fifteen slots. Shorter gaps are a busy machine, and no outage.
GAP_S = 0.15


@pytest.fixture
def nodes() -> Iterator[RedisCluster]:
    """Three masters and their replicas."""
    if redis_binary() is None:
        pytest.skip("no Redis to run")
    with contextlib.closing(RedisCluster()) as cluster:
        yield cluster.start()


def settings(url: str, prefix: str = PREFIX) -> Settings:
    app = Celery("proj", set_as_current=False)
    app.conf.update(global_rate_url=url, global_rate_key_prefix=prefix)
    return Settings.from_app(app)


def leads_to(settings: Settings) -> int:
    """The port of the node where a new connection ends."""
    connection = settings.connection()
    assert connection._sock is None
    connection.connect()
    opened: Any = connection._sock
    port = int(opened.getpeername()[1])
    connection.disconnect()
    return port


def test_a_connection_leads_to_the_node_that_has_the_keys(nodes: RedisCluster) -> None:
    """Whichever node is named, a replica too, past one that is gone, and for keys of every master."""
    owners = set()
    for prefix in ("a", "b", "c", "d", "e", "f"):
        owner = nodes.owner(f"{{{prefix}}}:x")
        for node in nodes.nodes:
            url = f"redis+cluster://127.0.0.1:{free_port()};redis+cluster://127.0.0.1:{node.port}/0"
            assert leads_to(settings(url, prefix)) == owner.port
        owners.add(owner.port)

    assert owners == {node.port for node in nodes.nodes[:3]}


def test_a_cluster_that_cannot_be_reached_is_reported(nodes: RedisCluster) -> None:
    """Nobody listens; the slot is nobody's; the password is wrong. The error is redis-py's, for the log."""
    with pytest.raises(redis.ConnectionError):
        leads_to(settings(f"redis+cluster://127.0.0.1:{free_port()}"))
    with pytest.raises(redis.AuthenticationError):
        leads_to(settings(f"redis+cluster://user:s3cret@127.0.0.1:{nodes.nodes[0].port}"))
    lone = Node(*free_pairs(1))
    with contextlib.closing(lone):
        lone.start()
        with pytest.raises(redis.exceptions.ClusterDownError):
            leads_to(settings(f"redis+cluster://127.0.0.1:{lone.port}"))


def test_a_slot_that_has_moved_is_followed_and_one_that_moves_is_waited_for(nodes: RedisCluster) -> None:
    """On the connection of the event loop: ASK is an answer to try again, MOVED a lost connection, opened elsewhere."""
    with Wire(nodes.url) as wire:
        key = "{test}:x"
        wire.open()
        target = next(node for node in nodes.nodes[:3] if not takes_writes(node, key))
        source = nodes.begin_move(key, target)
        nodes.move_keys(key, source, target)
        moving = wire.ask("EVAL", "return redis.call('GET', KEYS[1])", 2, key, "{test}:y")
        again = wire.ask("GET", key)
        nodes.end_move(key, source, target)
        moved = wire.ask("GET", key)
        lost = wire.changes[-1][1]
        wire.loop.tick(0.005, lambda: wire.connection.send(("PING",), lambda answer: None))
        wire.open()

        assert isinstance(moving, redis.exceptions.TryAgainError)
        assert isinstance(again, redis.exceptions.TryAgainError)
        assert isinstance(moved, SlotLostError)
        assert lost is moved
        assert wire.ask("GET", key) == b"1"
        assert wire.connection._redis.port == target.port


@pytest.mark.parametrize("lag_s", [0.05, pytest.param(0.3, marks=pytest.mark.slow)])
def test_a_replica_that_lags_and_takes_over_at_once(nodes: RedisCluster, figures: Figures, lag_s: float) -> None:
    """Slots of 100/s, reserved without a break, first from the master and then from what its replica knew of them.

    The replica's link goes through a proxy with a delay of l. It takes over by force and is asked at once: no worker
    is as quick. The same slots are given out twice, at most min(l/T, b - 1 + H/T) + 1 of them: the master's state at
    the end is at most l ahead of the replica's (and the longest pause between two calls), and at most H ahead of the
    clock, before which a bucket gives nothing.
    """
    assert LIMIT is not None
    master = nodes.owner(KEY)
    replica = nodes.replica(master)
    slots: list[float] = []
    calls: list[float] = []

    def reserve(node: Node) -> None:
        calls.append(time.monotonic())
        answer = node.command("EVAL", RESERVE.source, *reserve_call(PREFIX, own("limited", LIMIT), 100, "w", [""]))
        reservation = Reservation(*answer)
        slots.extend(reservation.slot_us(index) / 1e6 for index in range(reservation.count))

    with Proxy(master.port) as proxy:
        master.command("CONFIG", "SET", "cluster-announce-port", proxy.port)
        wait(lambda: nodes.follows(replica, proxy.port), FORMED_S)
        proxy.delay_s = lag_s
        end = time.monotonic() + 2 * lag_s + 0.5
        while time.monotonic() < end:
            reserve(master)
            time.sleep(0.02)
        reserve(master)
        replica.command("CLUSTER", "FAILOVER", "TAKEOVER")
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            reserve(replica)
            time.sleep(0.02)
    extra = excess(sorted(slots), LIMIT.interval_s, LIMIT.burst, 0)
    pause_s = max(later - earlier for earlier, later in zip(calls, calls[1:]))
    bound = min((lag_s + pause_s) / LIMIT.interval_s, LIMIT.burst - 1 + HORIZON_S / LIMIT.interval_s) + 1
    figures(f"a replica that lags by {lag_s} s takes over: {extra:+.2f} slots more than promised, bound {bound:.0f}")

    assert 0 < extra <= bound


def test_workers_reach_the_rate_and_learn_overrides(nodes: RedisCluster, empty_redis: Server, figures: Figures) -> None:
    """Two workers that know one replica each. All keys are on one node, and an override changes the limit of both."""
    first, second = (f"redis+cluster://127.0.0.1:{node.port}" for node in nodes.nodes[3:5])
    owner = nodes.owner(KEY)
    with Cluster(f"{empty_redis.url}/0", first, "100/s") as cluster, stalls_of(cluster, owner) as stalls:
        cluster.start(1, conf={"global_rate_url": second})
        run = backlog(cluster, owner.client(), 1, 6, stalls=stalls)
        with BlockingStore(settings(nodes.url)) as store:
            assert store.states({"limited": [""]})["limited"][0].given > 600
        cluster.send("limited", 1500)
        answers = cluster.app.control.rate_limit("limited", "200/s", reply=True, timeout=2, limit=2)
        changed = time.monotonic()
        cluster.wait_for(len(cluster.records("start", "limited")) + 300, 5)  # at 100/s 3 s
        took_s = time.monotonic() - changed
        named = {worker["redis"] for worker in cluster.stats().values()}
        checked = check(cluster)
    figures(f"Redis Cluster: {run}")

    assert run.kept
    assert 0.99 - run.stalled <= run.used <= 1.005
    assert all("new rate limit set successfully" in reply["ok"] for answer in answers for reply in answer.values())
    assert took_s < 2.5
    assert named == {first, second}
    assert checked.code == 0, checked
    assert [checked.of(f"w{number}@lab") for number in range(2)] == [["on"]] * 2
    assert [node for node in nodes.nodes[:3] if node.command("DBSIZE")] == [owner]


def test_a_node_that_is_named_as_a_single_redis_is_an_outage_with_its_reason(
    nodes: RedisCluster, empty_redis: Server
) -> None:
    """Logged once, not with each call."""
    other = next(node for node in nodes.nodes[:3] if not takes_writes(node, KEY))
    with Cluster(f"{empty_redis.url}/0", f"redis://127.0.0.1:{other.port}", "100/s") as cluster:
        cluster.send("limited", 10)
        cluster.start(1)
        cluster.wait(lambda: "no slots from the Redis" in cluster.log("w0"), 5)
        time.sleep(1.5)
        log = cluster.log("w0")
        starts = cluster.records("start")

    assert re.search(r"no slots from the Redis at redis://127.0.0.1:\d+ \(limited: (MOVED )?\d+ 127.0.0.1:\d+\)", log)
    assert log.count("no slots from the Redis") == 1
    assert "again after" not in log
    assert not starts


def planned(nodes: RedisCluster, master: Node, replica: Node) -> None:
    replica.command("CLUSTER", "FAILOVER")


def killed(nodes: RedisCluster, master: Node, replica: Node) -> None:
    master.stop()


def hung(nodes: RedisCluster, master: Node, replica: Node) -> None:
    assert master.process is not None
    master.suspend()


def under_load(
    nodes: RedisCluster, empty_redis: Server, disturb: Callable[[], Callable[[], float]]
) -> tuple[Run, float, float]:
    """Two workers at 100/s: disturb them, watch them until 3 s after the topology has settled, and set an override.

    Returns:
        The run from 1 s after that instant, the longest gap between releases, and how long after the instant the last
        gap ended, both in seconds.
    """
    assert LIMIT is not None
    with Cluster(f"{empty_redis.url}/0", nodes.url, "100/s", conf=HOLDS, loglevel="INFO") as cluster:
        cluster.send("limited", 2000)
        cluster.start(2)
        time.sleep(WARM_UP_S)
        begin = time.monotonic()
        settled = disturb()()
        time.sleep(RECOVERY_S + 2)
        end = time.monotonic()
        time.sleep(0.1)
        run = judge(cluster, LIMIT, 2, settled + RECOVERY_S, end, 0)
        releases = [instant for instant in cluster.instants("release") if instant >= begin]
        with BlockingStore(settings(nodes.url)) as store:
            store.change("limited", set_limits((), "none", (LIMIT,), None), "the test", "test")
        heard = lambda: all("limited: set none" in cluster.log(name) for name in cluster.workers)  # noqa: E731
        cluster.wait(heard, HEARD_S, "an override was not heard of")
    gaps = [(later, later - earlier) for earlier, later in zip(releases, releases[1:]) if later - earlier > GAP_S]
    recovered = max((later for later, _ in gaps), default=settled)
    return run, max((gap for _, gap in gaps), default=0.0), recovered - settled


def describe(run: Run, gap_s: float, recovery_s: float) -> str:
    return (
        f"no start for {gap_s:.2f} s, the first {recovery_s:.2f} s after it, from 1 s after it {run.used:.4f} of the "
        f"slots used; worst window {run.release_excess:+.2f}"
    )


@pytest.mark.parametrize("fail", [planned, killed, pytest.param(hung, marks=pytest.mark.long)])
def test_a_failover_under_load(
    nodes: RedisCluster, empty_redis: Server, figures: Figures, fail: Callable[[RedisCluster, Node, Node], None]
) -> None:
    """Full use within 1 s of the failover.

    What the replica did not know of could be given out twice, H/T slots at the most. But those lie less than H = 0.1 s
    ahead, and no failover is that short for a worker, which opens a connection 0.25 s after it has lost one: by the
    time of the first new slot they are over, so that the promise holds without an addition.
    """
    master = nodes.owner(KEY)
    replica = nodes.replica(master)

    def disturb() -> Callable[[], float]:
        watch = Watch([replica], KEY)
        fail(nodes, master, replica)
        return watch.wait

    run, gap_s, recovery_s = under_load(nodes, empty_redis, disturb)
    figures(f"Cluster, master {fail.__name__}: {describe(run, gap_s, recovery_s)}")

    assert recovery_s <= RECOVERY_S
    assert run.used >= 0.98
    assert gap_s > HORIZON_S
    assert run.release_excess <= 0


@pytest.mark.parametrize("pause_s", [0, pytest.param(1, marks=pytest.mark.long)])
def test_resharding_under_load(nodes: RedisCluster, empty_redis: Server, figures: Figures, pause_s: float) -> None:
    """The slot of the limits moves to another master, at once and with a second between its keys and its end.

    Nothing is forgotten, so the promise holds as ever; full use within 1 s of the end.
    """
    target = next(node for node in nodes.nodes[:3] if not takes_writes(node, KEY))

    def disturb() -> Callable[[], float]:
        source = nodes.begin_move(KEY, target)
        moved = nodes.move_keys(KEY, source, target)
        time.sleep(pause_s)
        moved += nodes.move_keys(KEY, source, target)
        nodes.end_move(KEY, source, target)
        assert moved >= 2
        return time.monotonic

    run, gap_s, recovery_s = under_load(nodes, empty_redis, disturb)
    figures(f"Cluster, slot moved in {pause_s} s: {describe(run, gap_s, recovery_s)}")

    assert recovery_s <= RECOVERY_S
    assert run.used >= 0.98
    assert run.release_excess <= 0
