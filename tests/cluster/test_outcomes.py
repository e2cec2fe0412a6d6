"""What tasks do beside succeeding: the rate is reached, each slot is spent on a start, and the next tasks start.

Each run has a worker and many tasks, each of which ends in its own way and has its own limit, so that one that
harms itself can be distinguished from one that harms all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

import pytest

from testbed.cluster import Cluster

from ..conftest import Figures, Server
from ..storage.wire import NOISE_S
from .outcomes import AT_LEAST, GREEN, KINDS, MEMBERS, UNLIMITED

PROCESSES = {"prefork": 8, "threads": 8, "solo": 1, "gevent": 8, "eventlet": 8}
#: Messages of each task.
ROUNDS = {"ends": 4, "losses": 3}
#: The interval of each limit, in seconds. A process that is lost costs two cores a tenth of a second.
INTERVAL_S = {"ends": 1.0, "losses": 2.0}
#: How long a task runs that fills the pool afterwards, in seconds.
FILL_S = 0.6
#: The cells of `make test`, beside those of prefork on Redis.
SHORT = (("threads", "redis", "losses"), ("gevent", "redis", "ends"))
#: What ends a solo worker of stock Celery.
END_SOLO = ("breaks_on_failure", "breaks_on_retry", "exits", "exits_late")


def load_of(pool: str, kind: str, extension: bool) -> dict[str, int]:
    """The tasks that are sent, and the starts that each message leads to."""
    load = {name: outcome.starts for name, outcome in KINDS[kind].items() if pool in outcome.pools}
    return {name: starts for name, starts in load.items() if extension or pool != "solo" or name not in END_SOLO}


def rate_of(kind: str) -> str:
    return f"{60 / INTERVAL_S[kind]:.0f}/m"


def run(cluster: Cluster, pool: str, kind: str, include: str = "tests.apps.outcomes") -> dict[str, int]:
    """Start a worker on the load, and wait until all has started that is to; returns the starts by task."""
    load = load_of(pool, kind, cluster.extension)
    expected = {name: starts * ROUNDS[kind] for name, starts in load.items()}
    if "arranges" in load:
        expected.update({name: starts * ROUNDS[kind] for name, starts in MEMBERS.items()})
    cluster.start(1, pool=pool, concurrency=PROCESSES[pool], options=["-I", include])
    for name in load:
        cluster.send(name, ROUNDS[kind])
        time.sleep(INTERVAL_S[kind] / len(load))  # or the slots of all would be due in one moment
    with contextlib.suppress(TimeoutError):  # the verdict names what has not started
        cluster.wait(lambda: all(len(cluster.records("start", name)) >= expected[name] for name in expected), 25)
    return expected


def verdict(cluster: Cluster, kind: str, expected: Mapping[str, int]) -> list[str]:
    """What is wrong: starts that are missing or too many, slots that were spent on nothing, a rate not reached.

    Each slot is one of a start or one that the worker counts as missed, or does not because its limit had others to
    spare. A busy machine misses some, which take an interval each; a task that cost its limit a slot each time would
    have as many as it has starts. A backlog of n takes n - 1 intervals besides, and a grace (a tenth of one) and R more
    or less, and an interval to begin.
    """
    wrong, missed, spared, interval_s = [], 0, 0, INTERVAL_S[kind]
    slack_s = interval_s / 10 + NOISE_S
    for name, count in expected.items():
        starts = len(cluster.records("start", name))
        if starts < count or (starts > count and name not in AT_LEAST):
            wrong.append(f"{name}: {starts} starts of {count}")
        releases = cluster.instants("release", name)
        if name in UNLIMITED or not releases:
            continue
        late = _slots(cluster, "granted", name) - _slots(cluster, "returned", name) - len(releases)
        missed += late
        spared += _slots(cluster, "spared", name)
        if not 0 <= late < len(releases):
            wrong.append(f"{name}: {late + len(releases)} slots for {len(releases)} starts")
        took_s, least_s = releases[-1] - releases[0], (len(releases) - 1) * interval_s
        if took_s < least_s - slack_s:
            wrong.append(f"{name}: {len(releases)} starts in {took_s:.2f} s")
        if name not in MEMBERS and name not in AT_LEAST and took_s > least_s + (late + 1) * interval_s + slack_s:
            wrong.append(f"{name}: {took_s:.2f} s for {len(releases)} starts")
    counted = cluster.stats()["w0"]["missed_slots"]
    if missed - spared != counted:
        wrong.append(f"{missed} slots were not used, of which the worker has missed {counted}")
    if missed > 2 + sum(expected.values()) / 10:
        wrong.append(f"{missed} slots missed")
    return wrong


def _slots(cluster: Cluster, kind: str, name: str) -> int:
    return sum(int(record.task_id) for record in cluster.records(kind, name))


def _is_frame_of_ours(line: str) -> bool:
    """Whether a line of a traceback is, other than that by which each task of a thread or greenlet is called."""
    return "celery_global_rate/" in line and not ("lost_tasks.py" in line and line.endswith("in run"))


def fill(cluster: Cluster, pool: str) -> float:
    """Have every process run a task, and one more; how long it took until all of them did, in seconds."""
    before = len(cluster.records("start", "afterwards"))
    cluster.send("afterwards", PROCESSES[pool] + 1, args=[FILL_S])
    cluster.wait_for(before + PROCESSES[pool] + 1, 10, task="afterwards")
    starts = cluster.instants("start", "afterwards")[before:]
    return starts[PROCESSES[pool] - 1] - starts[0]


def active(cluster: Cluster) -> list[str]:
    """The tasks that Celery counts as running."""
    replies = cluster.app.control.inspect(timeout=2, limit=1).active() or {"w0@lab": [{"name": "no reply"}]}
    return [task["name"] for tasks in replies.values() for task in tasks]


def cell(pool: str, broker: str, kind: str, is_short: bool = False) -> object:
    return pytest.param(pool, broker, kind, marks=[] if is_short else [pytest.mark.long])


@pytest.mark.parametrize(
    ("pool", "broker", "kind"),
    [
        cell(pool, broker, kind, is_short=(pool, broker) == ("prefork", "redis") or (pool, broker, kind) in SHORT)
        for pool in PROCESSES
        for broker in ("redis", "rabbitmq")
        for kind in KINDS
    ],
)
def test_what_tasks_do_costs_no_other_task_its_slot_or_its_process(
    request: pytest.FixtureRequest, empty_redis: Server, figures: Figures, pool: str, broker: str, kind: str
) -> None:
    """A few of each at 60/m or 30/m; then as many tasks as there are processes run at the same time, and none is left.

    These have 50/s: eight slots in 0.14 s. With a process that is counted as taken forever the last of them would
    wait for one of the first to end, after 0.6 s. The better of two attempts: a process may still be about to come.
    """
    if pool in GREEN:
        pytest.importorskip(pool)
    with outcomes_on(request, empty_redis, broker, rate_of(kind)) as cluster:
        expected = run(cluster, pool, kind)
        wrong = verdict(cluster, kind, expected)
        filled_s = -1.0 if wrong else min(fill(cluster, pool), fill(cluster, pool))
        if not wrong:
            cluster.wait(lambda: not active(cluster), 10, f"{active(cluster)} are counted as running")
        stats = cluster.stats()["w0"]
        log = cluster.log("w0")
    ours = [line for line in log.splitlines() if "global-rate" in line or _is_frame_of_ours(line)]
    figures(f"{sum(expected.values())} starts, {stats['missed_slots']} slots missed, pool full after {filled_s:.2f} s")

    assert "\n".join([*wrong, *ours]) == ""
    assert 0 <= filled_s < 0.14 + 0.02 + 2 * NOISE_S
    assert stats["held"] == 0


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", PROCESSES)
def test_stock_celery_does_all_of_that_without_a_limit(
    request: pytest.FixtureRequest, empty_redis: Server, pool: str, kind: str
) -> None:
    """Each outcome above is one that Celery itself goes on after."""
    if (pool, kind) == ("solo", "losses"):
        pytest.skip("there are none that it goes on after")
    if pool in GREEN:
        pytest.importorskip(pool)
    with outcomes_on(request, empty_redis, "redis", None) as cluster:
        expected = run(cluster, pool, kind)
        started = {name: len(cluster.records("start", name)) for name in expected}
        fill(cluster, pool)

    assert {name: max(starts, started[name]) for name, starts in expected.items()} == started


@pytest.mark.long
def test_the_verdict_finds_a_failure_that_stops_the_limits(request: pytest.FixtureRequest, empty_redis: Server) -> None:
    """The fault is there again, with which no limited task started after ten runs of which one had failed."""
    with outcomes_on(request, empty_redis, "redis", rate_of("ends")) as cluster:
        expected = run(cluster, "prefork", "ends", "tests.apps.outcomes,tests.apps.stuck")
        wrong = verdict(cluster, "ends", expected)

    assert len(wrong) >= len(KINDS["ends"]) / 2


def outcomes_on(request: pytest.FixtureRequest, server: Server, broker: str, rate: str | None) -> Cluster:
    url = request.getfixturevalue("rabbitmq") if broker == "rabbitmq" else f"{server.url}/0"
    conf = {"result_backend": f"{server.url}/1", "global_rate_max_held": 1000}
    return Cluster(url, f"{server.url}/1", rate, extension=rate is not None, conf=conf)
