"""Redis away, for all workers or for some: what starts meanwhile, and what is said."""

from __future__ import annotations

import logging
import time

import pytest
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from celery_global_rate.limits.timing import SILENCE_S
from celery_global_rate.storage.outage import ASKED_S, LOG_AGAIN_S, Outage
from celery_global_rate.storage.outage_policies import Hold
from testbed.cluster import Cluster
from testbed.eye import eye
from testbed.meanwhile import meanwhile
from testbed.proxy import Proxy
from testbed.server import Redis, free_port
from testbed.windows import excess, since, used

from ..conftest import Figures, Server

INTERVAL_S, GRACE_S = 0.01, 0.025
#: R where Redis answers on loopback, and the widening of a view that is 20 s old.
R_S = 0.005 + 20 * 200e-6
OUTAGE_S = 10


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["share", pytest.param("hold", marks=pytest.mark.long)])
def test_a_hung_redis(empty_redis: Server, own_redis: Redis, figures: Figures, policy: str) -> None:
    """SIGSTOP for 10 s, 4 workers at 100/s, and tasks without a limit beside them.

    With `share` each worker gives out slots 40 ms apart from a second after its last answer on, so 85 to 100 tasks
    start each second from 1.5 s after the stop. In any window these are `w / T + 4`, and the four of them come back
    one by one within a second, so that up to 3/4 of the rate come on top then: 75 more. With `hold` it is none.
    Tasks without a limit go on, and the loop too.
    """
    conf = {"global_rate_on_outage": policy, "global_rate_max_held": 3000}
    with Cluster(f"{empty_redis.url}/0", f"{own_redis.url}/1", "100/s", conf=conf) as cluster:
        cluster.environment["GLOBAL_RATE_MANY"] = "0"
        cluster.send("limited", 2500)
        cluster.start(4, options=["-I", "testbed.many"])
        cluster.wait(lambda: all(said["workers"] == 4 for said in cluster.stats().values()), 15)
        with meanwhile(lambda: cluster.send("free"), 0.02):
            time.sleep(2)
            eye(cluster)
            assert own_redis.process is not None
            stop = time.monotonic()
            own_redis.suspend()
            time.sleep(OUTAGE_S)
            late_ms = eye(cluster)["p99_ms"]
            resume = time.monotonic()
            own_redis.resume()
            time.sleep(3)
            end = time.monotonic()
            time.sleep(0.2)
        releases, free = cluster.instants("release"), cluster.instants("start", "free")
        starts = cluster.instants("start")
        log = cluster.log("w0")
    during = len(since(starts, stop + 1.5, resume)) / (resume - stop - 1.5)
    others = len(since(free, stop, resume)) / OUTAGE_S / (len(since(free, stop - 2, stop)) / 2)
    again = used(releases, INTERVAL_S, resume + 1, end)
    worst = excess(releases, INTERVAL_S, 1, GRACE_S + R_S)
    figures(
        f"{policy}, hung for {OUTAGE_S} s: {during:.1f} starts a second, unlimited tasks at {others:.3f}, loop p99 "
        f"{late_ms:.1f} ms late; a second after it {again:.4f} of 100/s, worst window {worst:+.2f}"
    )

    assert (85 <= during <= 101) if policy == "share" else during == 0
    assert others >= 0.95
    assert late_ms < 50
    assert again >= 0.98
    assert worst <= (75 + 4 if policy == "share" else 0)
    assert log.count("no answer from the Redis") == log.count("Redis answers again after") == 1


@pytest.mark.long
@pytest.mark.parametrize(("policy", "most"), [("share", 1.5), ("hold", 1.0)])
def test_half_of_the_workers_are_cut_off(
    empty_redis: Server, own_redis: Redis, figures: Figures, policy: str, most: float
) -> None:
    """2 of 4 for 20 s: the others have all slots, and with `share` these two half as many of their own.

    In a window of any length w: `b + most * (w + D + R) / T`, and one slot more for each that is cut off.
    """
    conf = {"global_rate_on_outage": policy}
    with Proxy(own_redis.port) as proxy:
        near, far = (f"redis://127.0.0.1:{port}/1" for port in (own_redis.port, proxy.port))
        with Cluster(f"{empty_redis.url}/0", near, "100/s", conf=conf) as cluster:
            cluster.send("limited", 5000)
            cluster.start(2)
            cluster.start(2, conf={"global_rate_url": far})
            cluster.wait(lambda: all(said["workers"] == 4 for said in cluster.stats().values()), 15)
            time.sleep(1)
            cut = time.monotonic()
            proxy.target = free_port()
            proxy.cut()
            time.sleep(20)
            back = time.monotonic()
            proxy.target = own_redis.port
            time.sleep(3)
            releases = cluster.records("release", "limited")
    instants = [record.instant for record in releases]
    rate = len(since(instants, cut + 1.5, back)) / (back - cut - 1.5)
    theirs = [record.instant for record in releases if record.worker in ("w2", "w3")]
    alone = len(since(theirs, cut + 1.5, back))
    worst = excess(instants, INTERVAL_S / most, 1, GRACE_S + R_S)
    figures(
        f"{policy}, 2 of 4 cut off for 20 s: {rate:.1f}/s of 100/s, {alone / (back - cut - 1.5):.1f}/s by these two; "
        f"worst window {worst:+.2f} against {most} of the rate"
    )

    assert 0.97 * most * 100 <= rate <= most * 100 + 1
    assert worst <= 2
    assert (alone > 0) == (policy == "share")


@pytest.mark.slow
def test_everything_starts_where_that_is_wanted(empty_redis: Server, figures: Figures) -> None:
    """`open`, and a Redis that was never reached: 500 tasks at 1/m start within 5 s."""
    conf = {"global_rate_on_outage": "open"}
    with Cluster(f"{empty_redis.url}/0", f"redis://127.0.0.1:{free_port()}/1", "1/m", conf=conf) as cluster:
        cluster.send("limited", 500)
        cluster.start(1)
        begin = time.monotonic()
        cluster.wait_for(500, 10)
        took_s = cluster.instants("start")[-1] - begin
        log = cluster.log("w0")
    figures(f"open: 500 tasks at 1/m in {took_s:.2f} s")

    assert took_s <= 5
    assert "tasks start without their limits until it is back" in log


def test_a_share_of_nobody_knows_how_many_is_none(empty_redis: Server) -> None:
    """A Redis that was never reached has reported no count: nothing starts, and the log says so."""
    with Cluster(f"{empty_redis.url}/0", f"redis://127.0.0.1:{free_port()}/1", "100/s") as cluster:
        cluster.send("limited", 5)
        cluster.start(1)
        time.sleep(SILENCE_S + 1)
        started, log = len(cluster.instants("start")), cluster.log("w0")

    assert started == 0
    assert log.count("tasks with a limit are held until it has reported how many workers share them") == 1


@pytest.mark.slow
def test_a_cut_while_nothing_is_held_is_no_outage(empty_redis: Server, own_redis: Redis) -> None:
    """The worker opens a new connection at once, though it has nothing to ask: no warning."""
    with Cluster(f"{empty_redis.url}/0", own_redis.url, "100/s", loglevel="INFO") as cluster:
        cluster.start(1)
        cluster.wait(lambda: "limits are cluster-wide" in cluster.log("w0"), 5)
        for _ in range(2):
            own_redis.client().client_kill_filter(_type="normal")
            time.sleep(SILENCE_S + 0.5)
        log = cluster.log("w0")

    assert log.count("(ConnectionError) for 0.") == 2
    assert "no answer from the Redis" not in log


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    time_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: time_s[0])
    return time_s


def test_it_counts_after_a_second_and_is_told_once_a_minute(now: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """With the last reason: a server that restarts refuses connections first, and then says why it gives no slots."""
    caplog.set_level(logging.INFO)
    ends: list[float] = []
    outage = Outage("redis://h", Hold(), lambda: ends.append(now[0]))
    counts, again = [], []
    for error, after_s in ((ConnectionError("secret"), 0), (ConnectionError("again"), 0.9), (ResponseError("no"), 0.6)):
        now[0] += after_s
        outage.replied("a", error) if isinstance(error, ResponseError) else outage.connected(error)
        counts.append(outage.counts("a"))
        again.append(outage.keep_up(now[0], 7))
    for _ in range(12):
        now[0] += 5
        outage.replied("a", ResponseError("no"))
        outage.keep_up(now[0], 7)
    outage.introduced(b"redis_version:8.0.0")
    is_over_for_others, is_over = not outage.counts("b"), not outage.counts("a")
    outage.replied("b", [])
    outage.replied("a", [])
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    what = "tasks with a limit are held until it is back; 7 tasks held"

    assert counts == [False, False, True]
    assert again == [1001, 1001, 1001.5 + ASKED_S]
    assert now[0] == 1001.5 + LOG_AGAIN_S
    assert (is_over_for_others, is_over) == (True, False)  # only slots of its own are an end of a refusal
    assert ends == [1061.5] * 2
    assert outage.awake_us == 0
    assert lines == [
        f"global-rate: no slots from the Redis at redis://h (a: no) for 2 s: {what}",
        f"global-rate: no slots from the Redis at redis://h (a: no) for 62 s: {what}",
        "global-rate: Redis gives out slots again after 61.5 s",
    ]


def test_who_has_waited_for_a_second_already_does_not_wait_for_another(now: list[float]) -> None:
    outage = Outage("redis://h", Hold(), lambda: None)
    outage.connected(TimeoutError("no answer for 1.0 s"))

    assert outage.counts("a")


def test_a_refusal_is_that_of_one_bucket(now: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """Another one goes on, and its slots are no end of it, nor let go. It counts, and is logged once."""
    ends: list[float] = []
    outage = Outage("redis://h", Hold(), lambda: ends.append(now[0]))
    for _ in range(30):
        now[0] += 0.1
        outage.replied("a", ResponseError("WRONGTYPE"))
        outage.replied("b", [])
        outage.keep_up(now[0], 7)
    counts = outage.counts("a"), outage.counts("b")
    outage.replied("a", [])

    assert counts == (True, False)
    assert len(ends) == 1
    assert [record.getMessage().partition(" for ")[0] for record in caplog.records] == [
        "global-rate: no slots from the Redis at redis://h (a: WRONGTYPE)",
        "global-rate: Redis gives out slots again after 2.9 s",
    ]


def test_a_refusal_that_nobody_asks_about_any_more_is_over(now: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """All that was held has been revoked, say. A bucket that holds something asks every five seconds at least."""
    outage = Outage("redis://h", Hold(), lambda: None)
    outage.replied("a", ResponseError("READONLY"))
    again = outage.keep_up(now[0] + 5, 0)
    reason = outage.reason
    outage.keep_up(now[0] + ASKED_S, 0)

    assert again <= now[0] + 5 + ASKED_S
    assert reason == "a: READONLY"
    assert outage.reason is None
    assert caplog.messages[-1] == "global-rate: no task waits for a bucket that the Redis at redis://h refused"


def test_a_slow_redis_is_logged_once_a_minute(now: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """Ten replies in a row that take 90 ms, repeatedly; with one quick reply between, it was noise."""
    outage = Outage("redis://h", Hold(), lambda: None)
    logged = []
    for round_trip_s in [0.09] * 9 + [0.01] + [0.09] * 10 + [0.09] * 40:
        now[0] += 2
        outage.took(round_trip_s)
        logged.append(len(caplog.records))

    assert logged.index(1) == 19
    assert logged.index(2) == 19 + LOG_AGAIN_S / 2
    assert "takes 90 ms to answer" in caplog.records[0].getMessage()


def test_a_blink_takes_no_saved_slots(now: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """An outage of less than a second does not count: the bucket is as full as it was, and nobody is woken."""
    caplog.set_level(logging.INFO)
    outage = Outage("redis://h", Hold(), lambda: None)
    outage.connected(ConnectionError())
    now[0] += 0.9
    outage.keep_up(now[0], 7)
    outage.replied("a", [])

    assert outage.awake_us > 10**14
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.INFO, "global-rate: no answer from redis://h (ConnectionError) for 0.9 s")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [4, pytest.param(10, marks=pytest.mark.long)])
def test_a_redis_that_hangs_soon_after_the_start(
    empty_redis: Server, own_redis: Redis, figures: Figures, workers: int
) -> None:
    """Two seconds after N workers have started together, for 8 s.

    Each knows of all, so its own slots are N T apart: after the first second, for which there are H / T = 6 slots, at
    most N + w / T of them start in a window w, and from 1.5 s on it is the rate, but for the N intervals cut at its
    ends. If they counted 1, 2, 3 and 4, it would be 2.08 times the rate.
    """
    rate = 60
    with Cluster(f"{empty_redis.url}/0", f"{own_redis.url}/1", "60/s", conf={"global_rate_max_held": 1000}) as it:
        it.send("limited", 4000)
        it.start(workers, pool="threads")
        time.sleep(2)
        assert own_redis.process is not None
        stop = time.monotonic()
        own_redis.suspend()
        time.sleep(8)
        resume = time.monotonic()
        own_redis.resume()
        time.sleep(0.2)
        starts = since(it.instants("start"), stop, resume)
    begin = stop + SILENCE_S + 0.5
    share = len(starts) / (resume - stop) / rate
    later = len(since(starts, begin)) / (resume - begin) / rate
    figures(f"{workers} workers, Redis hangs 2 s after their start: {share:.3f} of the rate, {later:.3f} from 1.5 s on")

    assert share <= 1.05
    assert 1 - 2 * workers / rate / (resume - begin) - 0.02 <= later <= 1.05
