"""A Redis that loses what it knew, or has something else under our keys."""

from __future__ import annotations

import time

import pytest

from celery_global_rate.limits.timing import HORIZON_S
from testbed.cluster import Cluster
from testbed.server import Redis
from testbed.windows import excess, since, used

from ..conftest import Figures, Server

INTERVAL_S = 0.01
#: D, R and what a busy machine adds to R.
SLACK_S = 0.025 + 0.005
#: b + H/T: a full bucket, and what was reserved before.
EXTRA = 1 + HORIZON_S / INTERVAL_S
PREFIX = "{global-rate:v1:lab}:"


@pytest.mark.long
def test_redis_is_killed_twenty_times_and_begins_empty(empty_redis: Server, own_redis: Redis, figures: Figures) -> None:
    """KILL under load, empty again after 0.2 s, twenty times; 4 workers at 100/s, which hold meanwhile.

    From one kill to the next there are at most `b + H/T` starts more than promised: a missing bucket is a full one, and
    what was reserved before is used. From a second after each begin at least 95 % of the slots are used.
    """
    conf = {"global_rate_on_outage": "hold"}
    with Cluster(f"{empty_redis.url}/0", f"{own_redis.url}/1", "100/s", conf=conf) as cluster:
        ids = cluster.send("late", 6000)
        cluster.start(4)
        cluster.wait_for(100, 10, task="late")
        kills, begins = [], []
        for _ in range(20):
            kills.append(time.monotonic())
            own_redis.restart()
            begins.append(time.monotonic())
            time.sleep(2.3)
        kills.append(time.monotonic())
        cluster.wait(lambda: len({record.task_id for record in cluster.records("end", "late")}) == len(ids), 60)
        releases = cluster.instants("release", "late")
        starts = cluster.records("start", "late")
    worst = max(excess(since(releases, begin, end), INTERVAL_S, 1, SLACK_S) for begin, end in zip(kills, kills[1:]))
    shares = [used(releases, INTERVAL_S, begin + 1, end - 0.1) for begin, end in zip(begins, kills[1:])]
    figures(
        f"killed 20 times: worst window {worst:+.2f} of +{EXTRA:.0f}, {min(shares):.3f} to {max(shares):.3f} of the "
        f"slots used from a second after each begin on, {len(starts)} starts of {len(ids)} tasks"
    )

    assert worst <= EXTRA
    assert min(shares) >= 0.95
    assert {record.task_id for record in starts} == set(ids)
    assert len(starts) == len(ids)


@pytest.mark.slow
def test_keys_and_scripts_are_deleted_under_load(empty_redis: Server, own_redis: Redis, figures: Figures) -> None:
    """4 workers at 100/s, a loss each 1.5 s: at most `b + H/T` more after a bucket is lost, none after scripts are."""
    client = own_redis.client()

    def evict() -> None:
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("maxmemory", 1)
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")

    losses = {
        "FLUSHALL": client.flushall,
        "the bucket deleted": lambda: client.delete(f"{PREFIX}bucket:limited"),
        "SCRIPT FLUSH": client.script_flush,
        "the bucket expires": lambda: client.pexpire(f"{PREFIX}bucket:limited", 1),
        "all evicted": evict,
    }
    with Cluster(f"{empty_redis.url}/0", own_redis.url, "100/s", loglevel="INFO") as cluster:
        cluster.send("limited", 1500)
        cluster.start(4)
        cluster.wait_for(100, 10)
        at = []
        for lose in losses.values():
            at.append(time.monotonic())
            lose()
            time.sleep(1.5)
        at.append(time.monotonic())
        time.sleep(0.2)
        releases = cluster.instants("release")
        log = "".join(cluster.log(name) for name in cluster.workers)
    for name, begin, end in zip(losses, at, at[1:]):
        after = since(releases, begin, end)
        worst, share = excess(after, INTERVAL_S, 1, SLACK_S), used(releases, INTERVAL_S, begin, end)
        figures(f"{name}: worst window {worst:+.2f}, {share:.3f} of the slots used")
        assert worst <= (0 if name == "SCRIPT FLUSH" else EXTRA)
        assert 0.97 <= share <= 1 + (EXTRA + 3) * INTERVAL_S / 1.5
    assert "Traceback" not in log
    assert "no answer" not in log
    assert client.info("stats")["evicted_keys"] >= 2


@pytest.mark.parametrize("key", ["bucket:limited", "waiting:limited", "records", "era", "workers", "history:limited"])
def test_something_else_under_a_key(empty_redis: Server, key: str) -> None:
    """A text where a hash, a set or a list is ours: one clear line at the most, no traceback, and the worker lives.

    What cannot do without that key holds; once it is deleted all goes on.
    """
    needed = key in ("bucket:limited", "waiting:limited", "records")
    client = empty_redis.client(1)
    client.set(PREFIX + key, "rubbish")
    conf = {"global_rate_on_outage": "hold"}
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", "50/s", conf=conf) as cluster:
        cluster.send("limited", 30)
        cluster.send("free", 5)
        cluster.start(1)
        cluster.wait_for(5, 5, task="free")
        if needed:
            cluster.wait(lambda: "WRONGTYPE" in cluster.log("w0"), 5)
        else:
            cluster.wait_for(30, 5)
        started = len(cluster.instants("start"))
        client.delete(PREFIX + key)
        cluster.wait_for(30, 5)
        log = cluster.log("w0")

    assert started == (0 if needed else 30)
    assert log.count("WRONGTYPE") == needed
    assert "Traceback" not in log


@pytest.mark.slow
def test_one_limit_is_refused_and_another_goes_on(empty_redis: Server, figures: Figures) -> None:
    """A text where the bucket of `limited` is, and `late` at 50/s in the same worker: all slots of that are used.

    One warning for the outage of the first, and no slot of the second let go.
    """
    client = empty_redis.client(1)
    client.set(PREFIX + "bucket:limited", "rubbish")
    conf = {"global_rate_on_outage": "hold", "global_rate_max_held": 500}
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", "50/s", conf=conf) as cluster:
        cluster.send("limited", 30)
        cluster.send("late", 400)
        cluster.start(1)
        cluster.wait_for(50, 10, task="late")
        begin = time.monotonic()
        time.sleep(4)
        end = time.monotonic()
        started = len(cluster.instants("start"))
        client.delete(PREFIX + "bucket:limited")
        cluster.wait_for(30, 5)
        share = used(cluster.instants("release", "late"), 1 / 50, begin, end)
        log = cluster.log("w0")
    figures(f"a limit beside one that Redis refuses: {share:.4f} of its slots used")

    assert started == 0
    assert share >= 0.98
    assert log.count("no slots from the Redis") == log.count("(limited: WRONGTYPE") == 1
    assert log.count("Redis gives out slots again after") == 1
