"""Real workers whose tasks share limits: named buckets, for tasks and for queues.

A slot counts as used from start to start (`testbed.windows.used`), so the edges of the watch cost nothing. What is
released is held to ``b + (w + D + R) / T`` in every window.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from celery_global_rate.limits.limit import AS_OVERRIDE, Limit
from celery_global_rate.limits.windows import Calendar
from testbed.cluster import Cluster
from testbed.scenarios import WARM_UP_S
from testbed.server import Redis
from testbed.stalls import Stalls, stalls_of
from testbed.windows import excess, since, used

from ..conftest import Figures, Server
from .operator import check, cluster_on, global_rate

TASKS = ("limited", "free", "late")
#: Of a bucket with two rates.
DECLARED = "1/h and 2/d, burst 2"


def limit_of(rate: str, burst: int = 1) -> Limit:
    limit = Limit.parse(rate, burst, AS_OVERRIDE)
    assert limit is not None
    return limit


def shared(broker: str, limiter: Redis, buckets: Mapping[str, Any], rate: str | None = None, **conf: Any) -> Cluster:
    """A cluster with named buckets, where `limited` and `late` may have a rate of their own.

    Each worker may hold all that is sent: tasks that wait for their own limit are not in the way of others.
    """
    return Cluster(
        broker, limiter.url, rate, conf={"global_rate_buckets": buckets, "global_rate_max_held": 5000, **conf}
    )


class Watch:
    """What some tasks of a cluster have started while it was watched, with a backlog.

    Args:
        cluster: the cluster.
        seconds: for how long.
        settle_s: after how many seconds.
        stalls: of its workers and their Redis; None if nobody watches them.

    Attributes:
        starts: how many, by task.
    """

    def __init__(
        self, cluster: Cluster, seconds: float, settle_s: float = WARM_UP_S, stalls: Stalls | None = None
    ) -> None:
        self._cluster = cluster
        time.sleep(settle_s)
        self.begin = time.monotonic()
        time.sleep(seconds)
        self.end = time.monotonic()
        time.sleep(0.5)
        self.starts = Counter(
            {task: len(since(cluster.instants("start", task), self.begin, self.end)) for task in TASKS}
        )
        stats = list(cluster.stats().values())
        self._stalls, self._missed = stalls, sum(worker.get("missed_slots", 0) for worker in stats)
        self._uncertainty_s = (
            max((worker.get("widest_clock_uncertainty_ms") or 0 for worker in stats), default=0) / 1000
        )

    def used(self, limit: Limit, tasks: Sequence[str] = TASKS) -> float:
        """The share of the slots of a limit that tasks have used."""
        return used(self._instants("start", tasks), limit.interval_s, self.begin, self.end)

    def stalled(self, limit: Limit) -> float:
        """The share of them that stalls of the machine may have taken, at the most."""
        return self._stalls.most(limit, self.begin, self.end, self._missed) if self._stalls else 0.0

    def excess(self, limit: Limit, tasks: Sequence[str] = TASKS) -> float:
        """Releases of tasks in the worst window beyond the promise of a limit."""
        return self.excess_of(self._instants("release", tasks), limit)

    def excess_of(self, releases: Sequence[float], limit: Limit) -> float:
        """Of these in the worst window."""
        return excess(releases, limit.interval_s, limit.burst, limit.grace_s + self._uncertainty_s)

    def fullest(self, limit: Limit, tasks: Sequence[str] = TASKS) -> int:
        """Releases in the period of a sliding limit with the most, shorter by R, and by D if that is promised."""
        assert limit.window
        releases = self._instants("release", tasks)
        length_s = limit.span_us / 1e6 - limit.grace_s - self._uncertainty_s
        return max(len(since(releases, first, first + length_s)) for first in releases)

    def used_up(self, limit: Limit, tasks: Sequence[str] = TASKS) -> float:
        """The share of N that has started in as many times P + D (P where slots stay for P) as fit into the watch."""
        length_s = limit.span_us / 1e6
        periods = int((self.end - self.begin) / length_s)
        starts = since(self._instants("start", tasks), self.end - periods * length_s, self.end)
        return len(starts) / (periods * limit.burst)

    def _instants(self, kind: str, tasks: Sequence[str]) -> list[float]:
        return sorted(instant for task in tasks for instant in self._cluster.instants(kind, task))


def test_three_tasks_share_one_bucket(empty_redis: Server, own_redis: Redis, figures: Figures) -> None:
    """60/s between four workers, the load uneven: whoever has work gets the slots."""
    limit = limit_of("60/s")
    buckets = {"api": {"rate": "60/s", "tasks": [*TASKS]}}
    with shared(empty_redis.url, own_redis, buckets) as cluster, stalls_of(cluster, own_redis) as stalls:
        for _ in range(60):
            for task, count in (("limited", 7), ("free", 1), ("late", 3)):
                cluster.send(task, count)
        cluster.start(4)
        watch = Watch(cluster, 5, stalls=stalls)
        share, worst = watch.used(limit), watch.excess(limit)
    figures(f"three tasks, one bucket of 60/s, 4 workers: {share:.4f} used, worst window {worst:+.2f}, {watch.starts}")

    assert worst <= 0
    assert 0.985 - watch.stalled(limit) <= share <= 1.005
    assert watch.starts["limited"] > watch.starts["late"] > watch.starts["free"] > 0


@pytest.mark.parametrize(
    "broker", ["redis", pytest.param("classic", marks=pytest.mark.long), pytest.param("quorum", marks=pytest.mark.long)]
)
def test_a_queue_has_a_limit(
    request: pytest.FixtureRequest, empty_redis: Server, own_redis: Redis, figures: Figures, broker: str
) -> None:
    """It holds for every task of the queue, with and without a limit of its own; the other queue goes on."""
    limit = limit_of("50/s")
    url = empty_redis.url if broker == "redis" else request.getfixturevalue("rabbitmq")
    buckets = {"mail": {"rate": "50/s", "queues": ["mail"]}}
    with shared(
        url, own_redis, buckets, "20/s", task_default_queue_type=broker if broker == "quorum" else None
    ) as cluster:
        for _ in range(40):
            cluster.send("free", 7, queue="mail")
            cluster.send("limited", 6, queue="mail")
            cluster.send("late", 5)
        cluster.start(2, options=["-Q", "mail,celery"])
        watch = Watch(cluster, 5)
        in_queue = watch.used(limit, ("free", "limited")), watch.excess(limit, ("free", "limited"))
        beside, own_worst = watch.used(limit_of("20/s"), ("late",)), watch.excess(limit_of("20/s"), ("limited",))
    figures(
        f"{broker}: a queue at 50/s, 2 workers: {in_queue[0]:.4f} used, worst {in_queue[1]:+.2f}; beside {beside:.4f}"
    )

    assert in_queue[1] <= 0
    assert in_queue[0] >= 0.985
    assert own_worst <= 0
    assert beside >= 0.985


@pytest.mark.parametrize(
    ("own", "rate", "together", "workers"),
    [
        ("10/s", "100/s", 100, 2),
        pytest.param("10/s", "100/s", 100, 1, marks=pytest.mark.long),
        pytest.param("100/s", "30/s", 30, 4, marks=pytest.mark.long),
        pytest.param("45/s", "100/s", 100, 4, marks=pytest.mark.long),
    ],
)
def test_lanes_that_cross(
    empty_redis: Server, own_redis: Redis, figures: Figures, own: str, rate: str, together: int, workers: int
) -> None:
    """Two tasks with a limit each and one without share another one: each limit holds, and together they are used."""
    limit, mine = limit_of(rate), limit_of(own)
    buckets = {"api": {"rate": rate, "tasks": [*TASKS]}}
    with shared(empty_redis.url, own_redis, buckets, own) as cluster, stalls_of(cluster, own_redis) as stalls:
        for _ in range(90):
            for task, count in (("limited", 4), ("free", 8), ("late", 4)):
                cluster.send(task, count)
        cluster.start(workers)
        watch = Watch(cluster, 6, stalls=stalls)
        share = watch.used(limit_of(f"{together}/s"))
        worst = watch.excess(limit), max(watch.excess(mine, ("limited",)), watch.excess(mine, ("late",)))
    figures(f"own {own} under {rate}, {workers} workers: {share:.4f} used, worst windows {worst}, {watch.starts}")

    assert max(worst) <= 0
    assert share >= 0.985 - watch.stalled(limit_of(f"{together}/s"))
    assert min(watch.starts.values()) > 0


def test_operators_change_a_named_bucket_by_its_name(empty_redis: Server) -> None:
    """`control rate_limit`, `set`, `pause`, `resume`, `reset`, `history`, `show`, `check` and the inspect commands."""
    entry: dict[str, Any] = {"rate": ["1/h", {"rate": "2/d", "burst": 2}], "tasks": ["free"], "queues": ["mail"]}
    with cluster_on(empty_redis, "1/h", conf={"global_rate_buckets": {"api": entry}}) as cluster:
        cluster.start(2)
        cluster.send("free", 200)
        cluster.send("limited", 20, queue="mail")

        def inspect(command: str) -> list[dict[str, Any]]:
            replies = cluster.app.control.broadcast(command, reply=True, timeout=2, limit=2)
            return [answer for reply in replies for answer in reply.values()]

        def order(rate: str) -> list[dict[str, str]]:
            replies = cluster.app.control.rate_limit("api", rate, reply=True, timeout=2, limit=2)
            return [answer for reply in replies for answer in reply.values()]

        declared = {"declared": DECLARED, "in_force": DECLARED, "source": "declared", "paused": False}
        assert [answer["api"] for answer in inspect("rate_limits")] == [declared, declared]
        assert all("2 rates are declared" in answer["error"] for answer in order("50/s"))
        begin = time.monotonic()
        assert all(f"50/s and 20/s, burst 2, before {DECLARED}" in answer["ok"] for answer in order("50/s,20/s"))
        cluster.wait_for(20, 5, task="free")
        assert time.monotonic() - begin > 15 / 20
        assert sum(answer["api"]["count"] for answer in inspect("rate_held")) > 50

        changed = "1/h and 30/d, burst 2"
        assert f"{changed} by override; {DECLARED} as declared" in global_rate(cluster, "set", "api", "1/h,30/d")
        refusal = global_rate(cluster, "set", "api", "5/s,30/d", "--burst", "3", is_good=False)
        assert "several limits: --burst is for one" in refusal
        assert "paused until resume" in global_rate(cluster, "pause", "api", "--reason", "they called")
        (row,) = [row for row in json.loads(global_rate(cluster, "show", "--json")) if row["task"] == "api"]
        assert (row["declared"], row["in_force"], row["source"]) == (DECLARED, changed, "global-rate set")
        assert row["paused"]["reason"] == "they called"
        assert row["held"] > 50
        global_rate(cluster, "resume", "api")
        assert f"api: {DECLARED} as declared; before {changed}" in global_rate(cluster, "reset", "api")
        history = global_rate(cluster, "history", "api").splitlines()
        assert [line.split()[2] for line in history] == ["reset", "resume", "pause", "set", "set"]
        assert check(cluster).code == 0

        cluster.setup["conf"]["global_rate_buckets"] = {"api": {**entry, "rate": "1/h"}}
        cluster.environment["GLOBAL_RATE_SETUP"] = json.dumps(cluster.setup)
        differing = check(cluster)
        assert differing.code != 0
        assert "another configuration of api: check global_rate_buckets" in "\n".join(differing.lines)


def test_each_tenant_has_its_own_bucket(empty_redis: Server, figures: Figures) -> None:
    """Three tenants with a backlog at 10/s each, and tasks that name none, which share a bucket; all share 35/s.

    Nobody has more than 10/s in any window, and together they have what both limits allow.
    """
    each, together = limit_of("10/s"), limit_of("35/s")
    buckets = {
        "tenant": {"rate": "10/s", "tasks": ["free"], "key": "headers.tenant"},
        "api": {"rate": "35/s", "tasks": ["free"]},
    }
    conf = {"global_rate_buckets": buckets, "global_rate_max_held": 1000}
    with cluster_on(empty_redis, None, conf=conf) as cluster, stalls_of(cluster, empty_redis) as stalls:
        tenant_of: dict[str, str | None] = {}
        for _ in range(110):
            for tenant in ("a", "b:c", "d", None):
                headers = {"tenant": tenant} if tenant else {}
                tenant_of.update(dict.fromkeys(cluster.send("free", headers=headers), tenant))
        cluster.start(2)
        watch = Watch(cluster, 6, stalls=stalls)
        (one, two) = cluster.app.control.broadcast("rate_held", reply=True, timeout=2, limit=2)
        held = [answer for reply in (one, two) for answer in reply.values()]
        shown = json.loads(global_rate(cluster, "show", "tenant", "--key", "b:c", "--json"))
        rows = global_rate(cluster, "show", "-t", "0")
        share, worst = watch.used(together, ("free",)), watch.excess(together, ("free",))
        releases: dict[str | None, list[float]] = {tenant: [] for tenant in tenant_of.values()}
        for record in cluster.records("release", "free"):
            releases[tenant_of[record.task_id]].append(record.instant)
        worst_each = {tenant: watch.excess_of(instants, each) for tenant, instants in releases.items()}
        counts = {tenant: len(since(instants, watch.begin, watch.end)) for tenant, instants in releases.items()}
    figures(f"4 tenants of 10/s under 35/s: {share:.4f} used, worst windows {worst:+.2f}, {worst_each}, {counts}")

    assert max(worst, *worst_each.values()) <= 0
    assert share >= 0.985 - watch.stalled(together)
    assert min(counts.values()) > 6 * 35 / 4 * 0.7
    assert {key for answer in held for name in answer for key in answer[name].get("keys", {})} <= {"a", "b:c", "d"}
    assert (shown[0]["task"], shown[0]["in_force"]) == ("tenant", "10/s")
    assert 5 <= shown[0]["rate_per_s"] <= 10.5
    assert re.search(r"tenant +10/s +10/s +declared +\? .*\?", rows)


@pytest.mark.parametrize("broker", ["redis", pytest.param("rabbitmq", marks=pytest.mark.long)])
def test_a_rate_limit_in_task_routes_holds_for_the_queue(
    request: pytest.FixtureRequest, empty_redis: Server, own_redis: Redis, figures: Figures, broker: str
) -> None:
    """As it is often written, in the configuration of the application; Celery itself takes no notice.

    The messages carry the word with them as far as the broker lets them, and nobody minds.
    """
    limit = limit_of("25/s")
    url = empty_redis.url if broker == "redis" else request.getfixturevalue("rabbitmq")
    routes = {"limited": {"queue": "feeds", "rate_limit": "25/s"}, "late": {"queue": "feeds"}}
    with shared(url, own_redis, {}, task_routes=routes) as cluster, stalls_of(cluster, own_redis) as stalls:
        cluster.loglevel = "INFO"
        cluster.app.conf.task_routes = routes
        for _ in range(100):
            cluster.send("limited", 1)
            cluster.send("late", 1)
            cluster.send("free", 3)
        cluster.start(2, options=["-Q", "feeds,celery"])
        cluster.wait_for(300, 20, task="free")
        watch = Watch(cluster, 3, 1, stalls)
        share, worst = watch.used(limit, ("limited", "late")), watch.excess(limit, ("limited", "late"))
        logs = [cluster.log(name) for name in cluster.workers]
    figures(f"25/s of a queue in task_routes on {broker}: {share:.4f} used, worst window {worst:+.2f}")

    assert worst <= 0
    assert 0.985 - watch.stalled(limit) <= share <= 1.005
    line = "as if global_rate_buckets had 'feeds': {'rate': '25/s', 'queues': ['feeds']}"
    assert all(line in log for log in logs), logs
    assert not any("Traceback" in log for log in logs)


@pytest.mark.parametrize(
    ("smooth", "fixed", "windows"),
    [("40/s", "60/2s", 3), pytest.param("20/s", "100/10s", 3, marks=pytest.mark.long)],
    ids=["60/2s", "100/10s"],
)
def test_a_rate_and_a_quota_of_fixed_windows(
    empty_redis: Server, own_redis: Redis, figures: Figures, smooth: str, fixed: str, windows: int
) -> None:
    """Both on one bucket, 4 workers: neither wastes what the other allows, so each window has all of its slots.

    A start counts in the window of the clock that Redis has, which is this machine's: a slot of a window is used by
    25 ms before its end, and not before its begin. So there are N in each, exactly.
    """
    quota = Limit.in_windows(fixed)
    assert isinstance(quota.window, Calendar)
    length_s = quota.window.seconds
    buckets = {"api": {"rate": [smooth, {"rate": fixed, "window": "fixed"}], "tasks": ["limited", "free"]}}
    with shared(empty_redis.url, own_redis, buckets) as cluster:
        for _ in range(80):
            cluster.send("limited", 5)
            cluster.send("free", 3)
        cluster.start(4)
        watch = Watch(cluster, length_s * (windows + 1), 0)
        worst = watch.excess(limit_of(smooth), ("limited", "free"))
        starts = [*cluster.instants("start", "limited"), *cluster.instants("start", "free")]
    epoch_s = time.time() - time.monotonic()
    counts = Counter(int((instant + epoch_s) // length_s) for instant in starts)
    full = sorted(counts)[1:-1]
    figures(f"{smooth} and {fixed} fixed, 4 workers: {[counts[it] for it in full]} starts a window, {worst:+.2f}")

    assert worst <= 0
    assert len(full) >= windows - 1
    assert max(counts.values()) <= quota.burst
    assert [counts[it] for it in full] == [quota.burst] * len(full)


@pytest.mark.parametrize(
    ("smooth", "sliding", "workers", "seconds"),
    [
        ("40/s", ["60/2s"], 4, 6.1),
        pytest.param("20/s", ["100/10s"], 4, 30.2, marks=pytest.mark.long),
        pytest.param("20/s", ["100/10s", "50/15s"], 1, 45.2, marks=pytest.mark.long),
        pytest.param("20/s", ["100/10s", "50/15s"], 4, 45.2, marks=pytest.mark.long),
    ],
)
def test_a_rate_and_quotas_of_sliding_windows(
    empty_redis: Server,
    own_redis: Redis,
    figures: Figures,
    smooth: str,
    sliding: Sequence[str],
    workers: int,
    seconds: float,
) -> None:
    """All on one bucket: none wastes what the others allow, and slots of the last one, which binds, come in bunches.

    60 in any 2 s have a D of 25 ms, over half a per cent: slots stay for P, and the promise is N in any P - D - R.
    Those of the others stay for P + D, which makes it P - R. Where N are wanted all the time, 0.99 of them start.
    """
    limits = [Limit.in_any(rate) for rate in sliding]
    rates = [smooth, *({"rate": rate, "window": "sliding"} for rate in sliding)]
    with shared(empty_redis.url, own_redis, {"api": {"rate": rates, "tasks": ["limited", "free"]}}) as cluster:
        for _ in range(80):
            cluster.send("limited", 5)
            cluster.send("free", 3)
        cluster.start(workers)
        watch = Watch(cluster, seconds, limits[-1].span_us / 1e6)
        worst = watch.excess(limit_of(smooth), ("limited", "free"))
        fullest = [watch.fullest(limit) for limit in limits]
        share = watch.used_up(limits[-1])
    figures(f"{smooth} and {sliding} sliding, {workers} workers: {fullest} in the fullest, {share:.4f}, {worst:+.2f}")

    assert worst <= 0
    assert all(count <= limit.burst for count, limit in zip(fullest, limits))
    assert share >= 0.99


@pytest.mark.long
@pytest.mark.parametrize(
    ("after", "bound"),
    [
        ({"rate": "40/s"}, limit_of("40/s")),
        ({"rate": {"rate": "20/s", "burst": 10}}, limit_of("20/s", 10)),
        ({"rate": "20/s", "key": "headers.tenant"}, limit_of("40/s", 2)),
        ({"rate": ["20/s", {"rate": "600/m", "burst": 20}]}, limit_of("20/s")),
    ],
)
def test_a_rolling_deploy(
    empty_redis: Server, own_redis: Redis, figures: Figures, after: dict[str, Any], bound: Limit
) -> None:
    """A worker with 20/s, and then one more with another configuration of the bucket: neither logs an error.

    Another rate or burst shares the state: the faster of both declared limits holds. With a key there are two states,
    and what both allow together.
    """
    before = {"rate": "20/s", "tasks": ["free"]}
    with cluster_on(empty_redis, None, conf={"global_rate_buckets": {"api": before}}) as cluster:
        cluster.send("free", 400, headers={"tenant": "a"})
        cluster.start(1)
        time.sleep(2)
        cluster.setup["conf"]["global_rate_buckets"] = {"api": {**before, **after}}
        cluster.environment["GLOBAL_RATE_SETUP"] = json.dumps(cluster.setup)
        cluster.start(1)
        watch = Watch(cluster, 3, 0.5)
        worst = watch.excess(bound, ("free",))
        logs = [cluster.log(name) for name in cluster.workers]
    figures(f"20/s and then {after}: {watch.starts['free'] / 3:.1f} starts/s, worst window {worst:+.2f}")

    assert worst <= 0
    assert watch.starts["free"] >= 3 * 20 * 0.95
    assert not any(word in log for log in logs for word in ("Traceback", "unexpected error"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("after", "most", "length_s"), [("30/2s", 30, 2), ("30/3s", 60 + 60, 6)], ids=["another number", "another window"]
)
def test_a_rolling_deploy_of_a_quota(
    empty_redis: Server, own_redis: Redis, figures: Figures, after: str, most: int, length_s: int
) -> None:
    """A worker with 20 in 2 s, and then one more with another quota: neither logs an error.

    Another number of slots shares the state, and the larger one holds. Another window has a state of its own: in what
    is a whole number of both windows there is the sum at the most.
    """
    before = {"rate": {"rate": "20/2s", "window": "fixed"}, "tasks": ["free"]}
    with cluster_on(empty_redis, None, conf={"global_rate_buckets": {"api": before}}) as cluster:
        cluster.send("free", 400)
        cluster.start(1)
        time.sleep(2)
        cluster.setup["conf"]["global_rate_buckets"] = {"api": {**before, "rate": {"rate": after, "window": "fixed"}}}
        cluster.environment["GLOBAL_RATE_SETUP"] = json.dumps(cluster.setup)
        cluster.start(1)
        time.sleep(2 * length_s + 1)
        starts = cluster.instants("start", "free")
        logs = [cluster.log(name) for name in cluster.workers]
    epoch_s = time.time() - time.monotonic()
    counts = Counter(int((instant + epoch_s) // length_s) for instant in starts)
    figures(f"20/2s fixed and then {after} fixed: {sorted(counts.items())} starts in {length_s} s")

    assert max(counts.values()) <= most
    assert max(counts.values()) > 20 * length_s / 2
    assert not any(word in log for log in logs for word in ("Traceback", "unexpected error"))


@pytest.mark.long
def test_operators_change_the_number_of_a_quota_and_not_its_window(
    empty_redis: Server, own_redis: Redis, figures: Figures
) -> None:
    """60 in two seconds, by order 20, by reset 60 again; a worker of a deploy with another window does not obey.

    An order is in force everywhere 250 ms after the reply of `control`, and 1.5 s after a command that asks no worker.
    Each window that begins later has exactly the new number, of a backlog.
    """
    quota = {"rate": {"rate": "60/2s", "window": "fixed"}, "tasks": ["free"]}
    with shared(empty_redis.url, own_redis, {"api": quota}) as cluster:
        cluster.send("free", 1500)
        cluster.start(2)
        cluster.wait_for(1, 20, task="free")

        def order(rate: str) -> list[dict[str, str]]:
            replies = cluster.app.control.rate_limit("api", rate, reply=True, timeout=2, limit=2)
            return [answer for reply in replies for answer in reply.values()]

        def watch(settle_s: float) -> list[int]:
            """Starts of the next two whole windows."""
            first = int((time.time() + settle_s) // 2) + 1
            time.sleep(2 * (first + 2) - time.time() + 0.5)
            epoch_s = time.time() - time.monotonic()
            counts = Counter(int((instant + epoch_s) // 2) for instant in cluster.instants("start", "free"))
            return [counts[first], counts[first + 1]]

        assert all("another period than the declared fixed window: use N/2s" in it["error"] for it in order("10/s"))
        assert all(it["ok"].endswith("20/2s fixed, before 60/2s fixed") for it in order("20/2s"))
        ordered = watch(0.25)
        global_rate(cluster, "reset", "api")
        declared = watch(1.5)
        global_rate(cluster, "set", "api", "20/2s")
        cluster.setup["conf"]["global_rate_buckets"] = {"api": {**quota, "rate": {"rate": "60/4s", "window": "fixed"}}}
        cluster.environment["GLOBAL_RATE_SETUP"] = json.dumps(cluster.setup)
        (name,) = cluster.start(1)
        cluster.wait(lambda: "another window, which has no effect" in cluster.log(name), 5, "no warning")
        log = cluster.log(name)
    figures(f"60/2s fixed: {ordered} starts in a window by order, {declared} after reset")

    assert ordered == [20, 20]
    assert declared == [60, 60]
    assert "api declares 60/4s fixed, and 20/2s fixed was set for it: another window, which has no effect" in log
