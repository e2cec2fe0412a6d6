"""A Redis that answers, and does not do what is asked; and two of them that both do."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator

import pytest

from celery_global_rate.limits.timing import HORIZON_S
from testbed.cluster import Cluster
from testbed.meanwhile import meanwhile, wait
from testbed.proxy import Proxy
from testbed.server import Redis, free_port, redis_binary
from testbed.windows import excess, since, used

from ..conftest import Figures, Server

INTERVAL_S = 0.01
#: D, R and what a busy machine adds to R.
SLACK_S = 0.025 + 0.005
AWAY_S = 2.5
#: A server with so many keys of this kind takes two seconds and more to load them.
KEYS, KEY_LOAD_US = 3000, 1000
SLOW_TO_LOAD = ("--key-load-delay", str(KEY_LOAD_US), "--loading-process-events-interval-bytes", "1024")


def read_only(redis: Redis) -> Callable[[], object]:
    redis.client().replicaof("127.0.0.1", free_port())
    time.sleep(AWAY_S)
    return lambda: redis.client().replicaof("NO", "ONE")


def loading(redis: Redis) -> Callable[[], object]:
    redis.restart()
    return lambda: None


def a_password(redis: Redis) -> Callable[[], object]:
    client = redis.client()
    client.config_set("requirepass", "s3cret")
    client.client_kill_filter(_type="normal", skipme=True)
    time.sleep(AWAY_S)
    return lambda: client.config_set("requirepass", "")


def out_of_memory(redis: Redis) -> Callable[[], object]:
    redis.client().config_set("maxmemory", 1)
    time.sleep(AWAY_S)
    return lambda: redis.client().config_set("maxmemory", 0)


@pytest.fixture
def own() -> Iterator[Redis]:
    """A server that needs time to load what it has saved."""
    if redis_binary() is None:
        pytest.skip("no second Redis to run")
    with contextlib.closing(Redis(options=SLOW_TO_LOAD)) as redis:
        with redis.start().client(2).pipeline() as pipe:
            for number in range(KEYS):
                pipe.set(f"key{number}", "x")
            pipe.execute()
        redis.client().save()
        yield redis


@pytest.mark.slow
@pytest.mark.parametrize(
    ("refuse", "reason"),
    [
        (read_only, "read only replica"),
        (loading, "BusyLoadingError"),
        (a_password, "AuthenticationError"),
        pytest.param(out_of_memory, "", marks=pytest.mark.long),
    ],
)
def test_a_redis_that_refuses(
    own: Redis, empty_redis: Server, figures: Figures, refuse: Callable[[Redis], Callable[[], object]], reason: str
) -> None:
    """Two workers at 100/s that hold in an outage: nothing starts but what was reserved, one line, full use 1 s later.

    H/T = 10 slots were reserved at the most, and they fall due within H. A Redis without memory refuses less than one
    would think: a script whose first write frees something may write on, and most calls are such.
    """
    conf = {"global_rate_on_outage": "hold", "global_rate_max_held": 2000}
    with Cluster(f"{empty_redis.url}/0", own.url, "100/s", conf=conf) as cluster:
        cluster.send("limited", 1500)
        cluster.start(2)
        sent: list[float] = []

        def send() -> None:
            cluster.send("free")
            sent.append(time.monotonic())

        with meanwhile(send, 0.02):
            cluster.wait_for(100, 10)
            begin = time.monotonic()
            mend = refuse(own)
            mend()
            end = time.monotonic()
            time.sleep(3)
            last = time.monotonic()
        time.sleep(0.2)
        releases, free = cluster.instants("release"), cluster.instants("start", "free")
        log = cluster.log("w0")
    during = since(releases, begin + HORIZON_S + SLACK_S, end)
    again = used(releases, INTERVAL_S, end + 1, last)
    worst = excess(releases, INTERVAL_S, 1, SLACK_S)
    others, after = (len(since(free, *spell)) / len(since(sent, *spell)) for spell in ((begin, end), (end, last)))
    figures(
        f"{refuse.__name__} for {end - begin:.1f} s: {len(during)} starts, unlimited tasks at {others / after:.2f}, "
        f"from 1 s after it {again:.4f} of the slots used, worst window {worst:+.2f}"
    )

    assert end - begin >= 2
    assert worst <= 0
    assert again >= 0.98
    assert others / after >= 0.9
    assert "Traceback" not in log
    if reason:
        assert not during
        assert len(re.findall("no (?:answer|slots) from the Redis", log)) == 1
        assert len(re.findall("Redis (?:answers|gives out slots) again after", log)) == 1
        assert reason in log, log


@pytest.mark.long
def test_two_masters(empty_redis: Server, figures: Figures) -> None:
    """A worker has the master, the other one a replica that was promoted beside it: for p seconds each has all slots.

    `p/T` more, and for what the replica had not heard of `b - 1 + H/T + 1`. Before and after it is one limit.
    """
    if redis_binary() is None:
        pytest.skip("no Redis to run")
    apart_s = 2.0
    with contextlib.ExitStack() as stack:
        master, replica = (Redis(options=("--repl-diskless-sync-delay", "0")) for _ in range(2))
        for server in (master, replica):
            stack.callback(server.close)
            server.start()
        replica.client().replicaof("127.0.0.1", master.port)
        near, far = (stack.enter_context(Proxy(master.port)) for _ in range(2))
        wait(lambda: replica.client().info("replication").get("master_link_status") == "up", 20)
        urls = [f"redis://127.0.0.1:{proxy.port}/0" for proxy in (near, far)]
        cluster = stack.enter_context(Cluster(f"{empty_redis.url}/0", urls[0], "100/s"))
        cluster.send("limited", 1500)
        cluster.start(1)
        cluster.start(1, conf={"global_rate_url": urls[1]})
        cluster.wait(lambda: len(cluster.shares()) == 2 and min(cluster.shares()) > 50, 10)
        begin = time.monotonic()
        replica.client().replicaof("NO", "ONE")
        far.target = replica.port
        far.cut()
        time.sleep(apart_s)
        near.target = replica.port
        near.cut()
        end = time.monotonic()
        time.sleep(3)
        last = time.monotonic()
        releases = [instant for instant in cluster.instants("release") if instant < last]
    before, after = since(releases, 0, begin), since(releases, end + 1)
    worst = excess(releases, INTERVAL_S, 1, SLACK_S)
    figures(
        f"two masters for {end - begin:.2f} s: {len(since(releases, begin, end)) / (end - begin):.0f} starts a second, "
        f"worst window {worst:+.1f} of +{(end - begin) / INTERVAL_S + 11:.0f}"
    )

    assert excess(before, INTERVAL_S, 1, SLACK_S) <= 0
    assert excess(after, INTERVAL_S, 1, SLACK_S) <= 0
    assert (end - begin) / INTERVAL_S / 2 <= worst <= (end - begin) / INTERVAL_S + 1 + HORIZON_S / INTERVAL_S
