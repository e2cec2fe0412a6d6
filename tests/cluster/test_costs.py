"""Real workers whose tasks cost several units of the limits that they share."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from celery import chord

from celery_global_rate.limits.limit import Limit
from testbed.cluster import Cluster
from testbed.scenarios import WARM_UP_S
from testbed.stalls import stalls_of
from testbed.windows import excess, since

from ..conftest import Figures, Server
from .operator import SLACK_S, global_rate
from .test_named_buckets import limit_of

INCLUDE = ("-I", "tests.apps.costly")
TOKENS: dict[str, Any] = {"rate": "100/s", "tasks": ["ask"], "cost": "tokens"}
#: None of them is a whole number >= 0 that 100/s could give.
BAD: list[Any] = ["many", -1, 1.5, True, [5], {"a": 1}, "", 10**12, 3.0, False]


def paid(
    broker: str, limiter: str, buckets: Mapping[str, Any], rate: str | None = None, backend: str | None = None
) -> Cluster:
    """A cluster with named buckets; each worker may hold all that is sent."""
    conf: dict[str, Any] = {"global_rate_buckets": buckets, "global_rate_max_held": 5000}
    if backend:
        conf["result_backend"] = backend
    cluster = Cluster(broker, limiter, rate, conf=conf, loglevel="INFO")
    cluster.app.set_default()
    return cluster


class Events:
    """What workers send of their tasks, by the ids of these."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._is_over = False
        self.of: dict[str, list[str]] = {}
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> Events:
        self._thread.start()
        time.sleep(0.5)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        self._thread.join(10)

    def _receive(self) -> None:
        with self._cluster.app.connection_for_read() as connection:
            receiver = self._cluster.app.events.Receiver(connection, handlers={"*": self._note})
            while not self._is_over:
                with contextlib.suppress(TimeoutError):
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)

    def _note(self, event: dict[str, Any]) -> None:
        if "uuid" in event:
            self.of.setdefault(event["uuid"], []).append(event["type"])


@pytest.mark.parametrize(
    ("pool", "broker"),
    [
        ("prefork", "redis"),
        ("threads", "redis"),
        pytest.param("gevent", "redis", marks=pytest.mark.long),
        pytest.param("solo", "redis", marks=pytest.mark.long),
        pytest.param("prefork", "rabbitmq", marks=pytest.mark.long),
        pytest.param("threads", "rabbitmq", marks=pytest.mark.long),
        pytest.param("gevent", "rabbitmq", marks=pytest.mark.long),
    ],
)
def test_a_cost_that_cannot_be_meant_fails_its_task_and_nothing_else(
    request: pytest.FixtureRequest, empty_redis: Server, figures: Figures, pool: str, broker: str
) -> None:
    """Every third task is such a one. The others are 20 times 4 units: 0.8 s at 100/s.

    Each of those fails once: with a result, a line in the log, the events and the signal that Celery has for failed
    tasks, and its message is gone.
    """
    if pool == "gevent":
        pytest.importorskip("gevent")
    url = f"{empty_redis.url}/0" if broker == "redis" else request.getfixturevalue("rabbitmq")
    with paid(url, f"{empty_redis.url}/1", {"llm": TOKENS}, backend=f"{empty_redis.url}/0") as cluster:
        (name,) = cluster.start(1, pool=pool, options=(*INCLUDE, "-E"))
        ask = cluster.app.signature("ask", app=cluster.app)
        with Events(cluster) as events:
            begin = time.monotonic()
            wrong, right = [], []
            for value in BAD:
                wrong.append(ask.clone((value,)).apply_async())
                right += [ask.clone((tokens,)).apply_async() for tokens in (5, 3)]
            values = [result.get(timeout=20) for result in right]
            took_s = time.monotonic() - begin
            errors = [result.get(timeout=20, propagate=False) for result in wrong]
            cluster.wait(lambda: len(cluster.records("failed")) >= len(BAD), 5, "signals of failures")
            cluster.wait(
                lambda: all("task-rejected" in events.of.get(it.id, ()) for it in wrong), 5, f"events: {events.of}"
            )
        log, stats = cluster.log(name), cluster.stats()[name]
        started = {record.task_id for record in cluster.records("start", "ask")}
        failed = [(record.task, record.task_id) for record in cluster.records("failed")]
        code = cluster.stop(name)
        with cluster.app.connection_for_read() as connection, connection.channel() as channel:
            left = channel.queue_declare("celery", durable=True, auto_delete=False).message_count
    figures(f"{pool}, {broker}: 20 tasks of 5 and 3 units among 10 bad ones, in {took_s:.2f} s")

    assert values == [5, 3] * len(BAD)
    assert 20 * 4 / 100 - 0.1 <= took_s <= 2.5
    for value, error, result in zip(BAD, errors, wrong):
        assert type(error) is ValueError
        assert f"task ask: its cost in bucket llm, tokens = {value!r:.80}, is " in str(error)
        assert re.search("send (a number of units, such as 1|1000000000 at the most)$", str(error))
        assert log.count(f"global-rate: {error}; {result.id} fails") == 1
        assert events.of[result.id].count("task-failed") == events.of[result.id].count("task-rejected") == 1
    assert sorted(failed) == sorted(("ValueError", result.id) for result in wrong)
    assert started == {result.id for result in right}
    assert (stats["held"], left, code) == (0, 0, 0)
    assert "Traceback" not in log
    assert "unexpected error" not in log


class Units:
    """What the starts of a cluster took of its limits.

    Args:
        cluster: whose tasks were sent.
        cost_of: units of one limit, by the ids of the tasks that pass it.

    Attributes:
        releases: the instant of each unit, in order.
        starts: the same by first lines.
        missed: slots that were reserved and not used.
    """

    def __init__(self, cluster: Cluster, cost_of: Mapping[str, int]) -> None:
        self.releases, self.starts = (
            [record.instant for record in cluster.records(kind) for _ in range(cost_of.get(record.task_id, 0))]
            for kind in ("release", "start")
        )
        stats = list(cluster.stats().values())
        self.missed = sum(worker["missed_slots"] for worker in stats)
        self._uncertainty_s = max(worker["widest_clock_uncertainty_ms"] or 0 for worker in stats) / 1000

    def excess(self, limit: Limit, largest: int) -> float:
        """By how many units the fullest window of releases is beyond ``max(b, c) + (w + D + R) / T``."""
        burst = max(limit.burst, largest)
        return excess(self.releases, limit.interval_s, burst, limit.grace_s + self._uncertainty_s)

    def used(self, limit: Limit, begin: float) -> float:
        """The share that was used, from the first start after an instant to the last one.

        The units of a start are paid for between the one before and itself: those of the first were before.
        """
        units = since(self.starts, begin)
        return (len(units) - units.count(units[0])) * limit.interval_s / (units[-1] - units[0])


def send(cluster: Cluster, task: str, costs: Sequence[int], **options: Any) -> dict[str, int]:
    """Send tasks that cost so many units, by a header; returns what each of them costs."""
    return {task_id: units for units in costs for task_id in cluster.send(task, headers={"units": units}, **options)}


def backlog(cluster: Cluster, rounds: int, *tasks: tuple[str, Sequence[int]]) -> dict[str, int]:
    """Send tasks in turns, each time one of these costs; returns what each of them costs."""
    return {
        task_id: units
        for _ in range(rounds)
        for task, costs in tasks
        for task_id, units in send(cluster, task, costs).items()
    }


@pytest.mark.parametrize("workers", [2, *(pytest.param(count, marks=pytest.mark.long) for count in (1, 4))])
def test_costs_of_1_to_10_at_random(empty_redis: Server, figures: Figures, workers: int) -> None:
    """100 units a second, and a backlog in each worker: 18 starts a second, and 0.99 of the units are used.

    A stall of the machine may take up to ``max(s, H) + 10 T`` of them, so 0.2 s and 2.5 % of the watch (`Stalls.most`).
    """
    limit, chance, seconds = limit_of("100/s"), random.Random(workers), 8
    buckets = {"tokens": {"rate": "100/s", "tasks": ["free"], "cost": "headers.units"}}
    with (
        paid(f"{empty_redis.url}/0", f"{empty_redis.url}/1", buckets) as cluster,
        stalls_of(cluster, empty_redis) as stalls,
    ):
        cluster.start(workers)
        begin = time.monotonic() + WARM_UP_S
        costs = send(cluster, "free", [chance.randint(1, 10) for _ in range(300)])
        time.sleep(max(0.0, begin + seconds - time.monotonic()))
        units = Units(cluster, costs)
    share, worst = units.used(limit, begin), units.excess(limit, 10)
    stalled = stalls.most(limit, begin, begin + seconds, units.missed, 10)
    figures(
        f"costs of 1 to 10 at 100/s, {workers} workers: {share:.4f} used, worst window {worst:+.2f}, {units.missed} "
        f"slots missed; stalls took {stalled:.3f} at the most"
    )

    assert worst <= 0
    assert 0.99 - stalled <= share <= 1.005


@pytest.mark.long
@pytest.mark.parametrize("workers", [2, 4])
def test_a_large_cost_among_costs_of_1_to_10(empty_redis: Server, figures: Figures, workers: int) -> None:
    """100 units a second, and a backlog of three lanes in each worker.

    `limited` costs units of that bucket, and one each of another, 20/s. `free` shares the first one with it, and `late`
    the second one. The large cost is paid within c T of its turn, while nobody else gets units; `late` goes on.

    Its turn comes when those before it in its lane have started, and one of 10 units would: each of the 2 lanes per
    worker has had up to 10 units before it, 0.1 s. Ten turns are enough.
    """
    tokens, requests, chance = limit_of("100/s"), limit_of("20/s"), random.Random(workers)
    large, seconds = 500, 18
    pays_s = large * tokens.interval_s
    buckets = {
        "tokens": {"rate": "100/s", "tasks": ["limited", "free"], "cost": "headers.units"},
        "requests": {"rate": "20/s", "tasks": ["limited", "late"]},
    }

    def small(count: int) -> list[int]:
        return [chance.randint(1, 10) for _ in range(count)]

    with (
        paid(f"{empty_redis.url}/0", f"{empty_redis.url}/1", buckets) as cluster,
        stalls_of(cluster, empty_redis) as stalls,
    ):
        cluster.start(workers)
        begin = time.monotonic()
        costs = backlog(cluster, 3 * workers, ("limited", small(1)), ("free", small(3)), ("late", [1] * 3))
        costs |= (the_large := send(cluster, "limited", [large]))
        costs |= backlog(cluster, 2 * seconds, ("limited", small(6)), ("free", small(14)), ("late", [1] * 14))
        time.sleep(max(0.0, begin + WARM_UP_S + seconds - time.monotonic()))
        task_of = {record.task_id: record.task for record in cluster.records("release")}
        of_tokens = {it: units for it, units in costs.items() if task_of.get(it) in ("limited", "free")}
        of_requests = {it: 1 for it in costs if task_of.get(it) in ("limited", "late")}
        token_units, request_units = Units(cluster, of_tokens), Units(cluster, of_requests)
        releases = cluster.records("release")
        held = [worker["held"] for worker in cluster.stats().values()]
    (at,) = [record for record in releases if record.task_id in the_large]
    lane = [record.instant for record in releases if (record.worker, record.task) == (at.worker, at.task)]
    waited_s = at.instant - max((instant for instant in lane if instant < at.instant), default=begin)
    pauses = {}
    for task in ("free", "late"):  # while workers warm up as well: the large one may be paid for by then
        instants = since([record.instant for record in releases if record.task == task], begin)
        pauses[task] = max(later - earlier for earlier, later in zip(instants, instants[1:]))
    share, beside = (
        token_units.used(tokens, begin + WARM_UP_S),
        request_units.used(requests, begin + WARM_UP_S),
    )
    worst = token_units.excess(tokens, large), request_units.excess(requests, 1)
    # Of the others: that the large one was missed would be seen by how long it waited.
    stalled = stalls.most(tokens, begin + WARM_UP_S, begin + WARM_UP_S + seconds, token_units.missed, 10)
    figures(
        f"one of {large} among 1 to 10 at 100/s, {workers} workers: {waited_s:.2f} s after the one before it in its "
        f"lane; longest pauses {pauses}; {share:.4f} used, stalls took {stalled:.3f} at the most, {beside:.4f} of the "
        f"other limit; worst windows {worst}; held {held}"
    )

    assert max(worst) <= 0
    assert min(held) > 0
    assert 0.99 - stalled <= share <= 1.005
    assert pays_s - SLACK_S - 10 * tokens.interval_s <= waited_s <= pays_s + 10 * 0.1 * 2 * workers
    assert pays_s - SLACK_S <= pauses["free"] <= pays_s + 0.3
    assert pauses["late"] <= 1


@pytest.mark.parametrize(("tokens_each", "workers"), [(40, 2), (400, 2), pytest.param(400, 4, marks=pytest.mark.long)])
def test_tokens_and_requests_of_one_api(empty_redis: Server, figures: Figures, tokens_each: int, workers: int) -> None:
    """20 requests and 2000 tokens a second: of 40 tokens each, requests bind, and of 400 each, tokens.

    Both are limits of the same tasks, and both hold. Of the one that binds 0.97 is used, or what stalls of the machine
    leave of that: a start is 50 ms of requests and up to 30 ms of tokens, or 0.3 s of these.
    """
    requests, tokens, chance = limit_of("20/s"), limit_of("2000/s"), random.Random(workers)
    largest, seconds = tokens_each * 3 // 2, 8
    buckets = {"requests": {"rate": "20/s", "tasks": ["ask"]}, "tokens": {**TOKENS, "rate": "2000/s"}}
    with (
        paid(f"{empty_redis.url}/0", f"{empty_redis.url}/1", buckets) as cluster,
        stalls_of(cluster, empty_redis) as stalls,
    ):
        cluster.start(workers, options=INCLUDE)
        begin = time.monotonic() + WARM_UP_S
        costs = {
            task_id: units
            for units in [chance.randint(tokens_each // 2, largest) for _ in range(300)]
            for task_id in cluster.send("ask", args=(units,))
        }
        time.sleep(max(0.0, begin + seconds - time.monotonic()))
        of_requests, of_tokens = Units(cluster, dict.fromkeys(costs, 1)), Units(cluster, costs)
    shares = of_requests.used(requests, begin), of_tokens.used(tokens, begin)
    binding, cost = (requests, 1) if tokens_each == 40 else (tokens, largest)
    stalled = stalls.most(binding, begin, begin + seconds, of_tokens.missed, cost)
    worst = of_requests.excess(requests, 1), of_tokens.excess(tokens, largest)
    figures(
        f"20 requests and 2000 tokens a second, {tokens_each} tokens each, {workers} workers: {shares[0]:.4f} and "
        f"{shares[1]:.4f} used, worst windows {worst}; stalls took {stalled:.3f} at the most"
    )

    assert max(worst) <= 0
    assert 0.97 - stalled <= max(shares) <= 1.005
    assert (shares[0] > shares[1]) == (tokens_each == 40)


@pytest.mark.parametrize("given", ["argument", "header"])
def test_a_retry_pays_again(empty_redis: Server, figures: Figures, given: str) -> None:
    """30 units at 100/s, four times: it keeps its argument and its header. Starts are 0.3 s apart, less D + R + J."""
    buckets = {"llm": {**TOKENS, "tasks": ["asks_again"]}}
    headers = {"global_rate_cost": 30} if given == "header" else {}
    with paid(f"{empty_redis.url}/0", f"{empty_redis.url}/1", buckets) as cluster:
        cluster.start(1, options=INCLUDE)
        cluster.send("asks_again", args=(1 if headers else 30,), headers=headers)
        cluster.wait_for(4, 10, task="asks_again")
        starts = cluster.instants("start", "asks_again")
    gaps = [later - earlier for earlier, later in zip(starts, starts[1:])]
    figures(f"a retry of 30 units at 100/s, by {given}: gaps {[round(gap, 3) for gap in gaps]}")

    assert len(gaps) == 3
    assert min(gaps) >= 0.3 - SLACK_S
    assert max(gaps) <= 0.6


def test_a_message_of_no_cost_passes_in_its_turn(empty_redis: Server, figures: Figures) -> None:
    """Of a task at 1/h, in a bucket at 1/h. The first one takes the only slots, and 20 free ones pass at once.

    The next one waits, and 20 more free ones wait behind it. Another task of the bucket is not concerned, until that is
    paused.
    """
    buckets = {"llm": {**TOKENS, "rate": "1/h", "tasks": ["ask", "free"]}}
    free: dict[str, Any] = {"headers": {"global_rate_cost": 0}}
    with paid(f"{empty_redis.url}/0", f"{empty_redis.url}/1", buckets, "1/h") as cluster:
        cluster.start(1, options=INCLUDE)
        (first,) = cluster.send("ask", args=(1,))
        cluster.wait_for(1, 10, task="ask")
        begin = time.monotonic()
        passing = cluster.send("ask", 20, args=(1,), **free)
        cluster.wait_for(21, 5, task="ask")
        took_s = time.monotonic() - begin
        cluster.send("ask", args=(1,))
        waiting = cluster.send("ask", 20, args=(1,), **free)
        beside = cluster.send("free", 20, **free)
        cluster.wait_for(20, 5, task="free")
        global_rate(cluster, "pause", "llm")
        time.sleep(1)
        paused = cluster.send("free", 5, **free)
        time.sleep(1)
        started = [record.task_id for record in cluster.records("start")]
    figures(f"20 messages that cost nothing: {took_s:.2f} s")

    assert set(started) == {first, *passing, *beside}
    assert not set(started) & {*waiting, *paused}
    assert took_s < 1


def test_what_waits_for_a_task_learns_of_a_bad_cost(empty_redis: Server) -> None:
    """A chord fails as with any other failed member, an errback is called, and the rest of a chain fails."""
    url = f"{empty_redis.url}/0"
    with paid(url, f"{empty_redis.url}/1", {"llm": TOKENS}, backend=url) as cluster:
        app = cluster.app
        cluster.start(1, options=INCLUDE)
        ask, total, told = (app.signature(name, app=app) for name in ("ask", "total", "told"))
        joined = chord([ask.clone((tokens,)) for tokens in (1, "many")], total).apply_async()
        ask.clone(("many",)).on_error(told.clone(immutable=True)).apply_async()
        with pytest.raises(Exception, match="is not a whole number"):
            joined.get(timeout=10)
        cluster.wait_for(1, 10, task="told")
        totals = cluster.instants("start", "total")

    assert not totals
