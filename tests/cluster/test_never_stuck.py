"""Errors of ours in real workers: planted at each call between the parts of the extension, one call after the other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from celery_global_rate.limits.limit import Limit
from testbed.cluster import Cluster
from testbed.windows import excess, since, used

from ..conftest import Figures, Server

#: Calls that know their bucket: the other one's slots are used meanwhile.
OF_A_BUCKET = [
    *(
        "storage.limiter.Limiter.reserve",
        "storage.limiter.Limiter.give_back",
        "storage.overrides.Overrides.text",
        "storage.outage.Outage.replied",
    ),
    *("worker.pool.CeleryPool.start", "worker.pool.CeleryPool.is_gone", "limits.reservation.SlotsInHand.miss"),
]
#: Calls beside the way of a task: both go on.
BESIDE = [
    *(
        "broker.prefetch.Credit.received",
        "broker.prefetch.Credit.cover",
        "broker.ack_deadline.AckDeadline.hold",
        "broker.ack_deadline.AckDeadline.keep_up",
    ),
    *(
        "scheduling.sweep.Sweep.keep_up",
        "storage.overrides.Overrides.keep_up",
        "storage.outage.Outage.keep_up",
        "storage.heartbeat.Heartbeat.keep_up",
    ),
    *(
        "storage.override_feed.OverrideFeed.keep_up",
        "worker.pool.CeleryPool.show",
        "worker.pool.CeleryPool.line_up",
        "scheduling.scheduler.Scheduler.ended",
    ),
]
#: Calls that all need: both have to wait.
OF_ALL = [
    *(
        "limits.redis_clock.RedisClock.reached",
        "limits.redis_clock.RedisClock.observe",
        "storage.outage.Outage.took",
        "scheduling.capacity.Capacity.at_once",
    ),
    *(
        "scheduling.capacity.Capacity.slots",
        "scheduling.capacity.Capacity.places",
        "worker.pool.CeleryPool.free",
        "worker.engine.Engine._ended",
    ),
    *("scheduling.scheduler.Scheduler.pump", "storage.outage.Outage.counts"),
]
BRIEF = [
    "storage.limiter.Limiter.reserve",
    "worker.pool.CeleryPool.start",
    "broker.prefetch.Credit.cover",
    "scheduling.scheduler.Scheduler.pump",
]
RATE = Limit.parse("40/s")
#: How long an error lasts, and how long after its end all is to be as before, in seconds.
LASTS_S, RECOVERED_S = 0.6, 1.0
#: From then on the slots are watched for so long, in seconds.
WATCHED_S = 1.0
#: For one call, in seconds, on a machine that is busy.
LONGEST_CYCLE_S = 6.0
TASKS = ("limited", "late")


@pytest.mark.slow
def test_an_error_of_ours_stops_nothing_for_good(
    empty_redis: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures
) -> None:
    """Four calls; see `hurt`."""
    hurt(empty_redis, tmp_path, monkeypatch, figures, BRIEF)


@pytest.mark.long
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_no_error_of_ours_stops_anything_for_good(
    empty_redis: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures, pool: str
) -> None:
    """All calls; see `hurt`."""
    hurt(empty_redis, tmp_path, monkeypatch, figures, [*OF_A_BUCKET, *BESIDE, *OF_ALL], pool)


def hurt(
    redis: Server,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: Figures,
    calls: list[str],
    pool: str = "prefork",
) -> None:
    """Let each call fail once, and then for 0.6 s, for the tasks `limited`; `late` has its own limit.

    40/s each, 10 ms each, 4 processes. Within a second after the end of an error (the longest pause of 0.8 s, and a
    call) both start again, and use their slots in the second after it: 0.95 of them in the mean of all calls, and half
    of them after each, since the machine may stall once. While calls fail that know their bucket, or are beside the
    way, `late` uses 0.99 of what it does in those calm seconds of the same run, and all of its windows keep the
    promise. Log: a traceback for all, since one line raises them, and a line a minute.
    """
    assert RATE is not None
    planted = directory / "planted"
    planted.write_text("")
    monkeypatch.setenv("GLOBAL_RATE_PLANTED", str(planted))
    monkeypatch.setenv("GLOBAL_RATE_CALLS", " ".join(calls))
    after: list[tuple[float, float, str, str, str]] = []
    sound_until = 0.0
    with Cluster(f"{redis.url}/0", f"{redis.url}/1", "40/s") as cluster:
        for _ in range(int(len(calls) * LONGEST_CYCLE_S * RATE.per_second) // 20):
            for task in TASKS:
                cluster.send(task, 20, args=(0.01,))
        cluster.start(1, pool=pool, concurrency=4, options=("-I", "tests.apps.planted"))
        cluster.wait_for(60, 20)
        begin = time.monotonic()
        for call in calls:
            for how, lasts_s in (("once", 0.05), ("always", LASTS_S)):
                planted.write_text(f"{call} {how}")
                time.sleep(lasts_s)
                planted.write_text("")
                end = time.monotonic()
                recovered = end + RECOVERED_S
                time.sleep(RECOVERED_S + WATCHED_S + 3 * RATE.interval_s)
                for task in TASKS:
                    starts = since(cluster.instants("start", task), end)
                    share = used(starts, RATE.interval_s, recovered, recovered + WATCHED_S)
                    after.append((starts[0] - end if starts else float("inf"), share, task, call, how))
            sound_until = sound_until if call in OF_ALL else recovered + WATCHED_S
        sound = used(cluster.instants("start", "late"), RATE.interval_s, begin, sound_until)
        (stats,) = cluster.stats().values()
        slack_s = RATE.grace_s + (stats["widest_clock_uncertainty_ms"] or 0) / 1000
        worst = excess(cluster.instants("release", "late"), RATE.interval_s, 1, slack_s)
        log = cluster.log("w0")
    longest_s, calm = max(after)[0], sum(it[1] for it in after if it[2] == "late") / len(after) * len(TASKS)
    figures(
        f"{pool}, {len(calls)} calls: {sound:.4f} of the slots of others meanwhile, {calm:.4f} without an error, the "
        f"first start after one at most {longest_s:.2f} s later"
    )

    assert longest_s <= RECOVERED_S, max(after)
    assert not [it for it in after if not 0.5 <= it[1] <= 1.05], log[-3000:]
    assert 0.95 <= calm <= 1.01
    assert sound >= 0.99 * calm
    assert worst <= 0
    assert 1 <= log.count("Traceback") <= 2, log
    assert log.count("unexpected error") + log.count(" again, ") <= 2 + len(calls) * LONGEST_CYCLE_S / 60
