"""`celery global-rate check` against real workers, and what they log at their start."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click
import pytest
from click.testing import CliRunner

from celery_global_rate.cli.check import Reference
from celery_global_rate.cli.main import global_rate
from celery_global_rate.storage.server_info import Server
from celery_global_rate.version import __version__
from testbed.cluster import Cluster
from testbed.proxy import Proxy
from testbed.server import Redis, free_port

from ..conftest import Figures
from ..conftest import Server as AnyRedis
from .operator import SECRET, check

PREFIX = "global-rate:v1:lab"


def alias(url: str) -> str:
    """Another name of the same server."""
    return url.replace("127.0.0.1", "localhost")


def test_it_finds_the_workers_that_were_forgotten(empty_redis: AnyRedis, figures: Figures) -> None:
    """Three agree, one of them by another name of the server; then one without, one on another database, one with
    another prefix, one with rate limits disabled, and a second one of the same name that is off."""
    url = empty_redis.url
    with Cluster(f"{url}/0", f"{url}/1", "10/s") as cluster:
        cluster.start(2, pool="solo")
        cluster.start(1, conf={"global_rate_url": f"{alias(url)}/1"})
        agreed = check(cluster)

        assert [agreed.of(f"w{number}@lab") for number in range(3)] == [["on"]] * 3
        assert agreed.verdict == "On in all workers that have answered (3), with one Redis and one prefix."
        assert agreed.code == 0

        cluster.start(1, pool="solo", extension=False)
        cluster.start(1, pool="solo", conf={"global_rate_url": f"{alias(url)}/2"})
        cluster.start(1, pool="solo", conf={"global_rate_key_prefix": "other:"})
        row = check(cluster)
        cluster.start(1, pool="solo", conf={"worker_disable_rate_limits": True})
        cluster.launch(pool="solo", extension=False, options=["-n", "w0@lab"])  # it answers to another one's name
        cluster.wait(lambda: len(cluster.app.control.ping(timeout=1, limit=8) or []) == len(cluster.workers) == 8, 60)
        more = check(cluster, "-t", "1.5")
    figures("\n" + "\n".join(row.lines))

    (redis,) = row.of("Redis")
    assert redis.startswith(f"redis://{url.rpartition('/')[2].rpartition('@')[2]}/1, ")
    assert ", master, noeviction, round trip 0." in redis
    assert row.of("prefix") == [PREFIX]
    assert [row.of(f"w{number}@lab") for number in range(6)] == [
        *([["on"]] * 3),
        ["off"],
        [f"another Redis: {alias(url)}/2"],
        ["another prefix: other:"],
    ]
    assert row.verdict == "3 of 6 workers differ: see above."
    assert row.code == 1
    assert more.of("w6@lab") == ["off"]
    assert sorted(more.of("w0@lab")) == ["off", "on"]
    assert more.verdict.startswith("5 of 8 workers differ")


def test_a_redis_that_stops_and_comes_back(empty_redis: AnyRedis, own_redis: Redis, figures: Figures) -> None:
    """Stopped, it neither answers nor closes its connections; ended, it closes them. A worker that holds nothing
    finds out because it is asked, and by the second question it knows, also that Redis is there again."""
    url = own_redis.url.replace("//", f"//default:{SECRET}@")
    with Cluster(f"{empty_redis.url}/0", f"{url}/1", "10/s", loglevel="INFO") as cluster:
        cluster.start(1, pool="solo")
        assert check(cluster).code == 0

        own_redis.suspend()
        stopped = check(cluster)
        own_redis.resume()
        assert check(cluster).code == 0
        own_redis.stop()
        ended = check(cluster)
        own_redis.start()
        begin = time.monotonic()
        again = check(cluster)
        took_s = time.monotonic() - begin
        log = cluster.log("w0")
    figures(f"stopped: {stopped.lines}; ended: {ended.lines}; again: {again.lines} after {took_s:.1f} s")

    assert "cannot be reached (TimeoutError)" in stopped.of("Redis")[0]
    assert "no answer from its Redis (" in stopped.of("w0@lab")[0]
    assert "cannot be reached (ConnectionError: Connection refused)" in ended.of("Redis")[0]
    assert ended.of("w0@lab") == ["no answer from its Redis (ConnectionError: Connection refused)"]
    assert stopped.verdict == ended.verdict == "1 of 1 workers differ: see above."
    assert (stopped.code, ended.code, again.code) == (1, 1, 0)
    assert SECRET not in log


def test_names_of_servers_are_all_there_is_where_an_acl_refuses_to_tell(
    empty_redis: AnyRedis, own_redis: Redis, figures: Figures
) -> None:
    """The same server by another name is then another Redis; and the worker says nothing of it."""
    own_redis.client().acl_setuser(
        "app", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], commands=["+@all", "-info"]
    )
    url = own_redis.url.replace("//", f"//app:{SECRET}@")
    with Cluster(f"{empty_redis.url}/0", f"{url}/1", "10/s", loglevel="INFO") as cluster:
        cluster.start(1, pool="solo")
        cluster.start(1, pool="solo", conf={"global_rate_url": f"{alias(url)}/1"})
        answer = check(cluster)
        log = cluster.log("w0")
    figures(str(answer.lines))

    assert ", version unknown, role unknown, eviction policy unknown, round trip 0." in answer.of("Redis")[0]
    assert answer.of("w0@lab") == ["on"]
    assert answer.of("w1@lab") == [f"another Redis: {alias(own_redis.url)}/1"]
    assert "WARNING" not in log.partition("ready.")[2]
    assert SECRET not in log


def test_a_worker_names_what_it_limits_and_what_is_wrong_with_its_redis(
    empty_redis: AnyRedis, own_redis: Redis, figures: Figures
) -> None:
    """300 limited tasks, on a replica that evicts. The names come once for each start, though the broker is lost."""
    own_redis.client().config_set("maxmemory-policy", "allkeys-lru")
    own_redis.client().replicaof("127.0.0.1", empty_redis.port)
    with Proxy(empty_redis.port) as proxy:
        broker = f"redis://127.0.0.1:{proxy.port}/0"
        url = own_redis.url.replace("//", f"//default:{SECRET}@")
        with Cluster(broker, f"{url}/1", "10/s", loglevel="INFO") as cluster:
            cluster.start(1, pool="solo", options=["-I", "testbed.many"])
            cluster.wait(lambda: "may evict" in cluster.log("w0"), 10)
            proxy.cut()
            cluster.wait(lambda: cluster.log("w0").count("limits are cluster-wide") == 2, 20)
            answer = check(cluster)
            log = cluster.log("w0")
    lines = [line for line in log.splitlines() if "global-rate: " in line]
    said = [line.partition("global-rate: ")[2] for line in lines]
    figures("\n" + "\n".join([*lines, *answer.lines]))
    limiter = f"{own_redis.url}/1"

    assert said == [
        "late at 10/s",
        "limited at 10/s",
        *(f"many.task{number:03} at 100/m" for number in range(8)),
        "and 290 more",
        f"limits are cluster-wide, kept by the Redis at {limiter}",
        f"the Redis at {limiter} is a replica, which takes no writes: name its master instead",
        f"the Redis at {limiter} may evict keys (maxmemory-policy allkeys-lru), and an evicted key is a full bucket: "
        "set maxmemory-policy noeviction",
        f"limits are cluster-wide, kept by the Redis at {limiter}",
    ]
    assert [": INFO/" in line for line in lines] == [True] * 12 + [False] * 2 + [True]
    assert [": WARNING/" in line for line in lines] == [False] * 12 + [True] * 2 + [False]
    assert SECRET not in log
    assert answer.of("w0@lab") == ["on"]
    assert ", replica, allkeys-lru, " in answer.of("Redis")[0]
    assert [text.partition(",")[0] for text in answer.of("warning")] == [
        "this Redis is a replica",
        "this Redis may evict keys (maxmemory-policy allkeys-lru)",
    ]
    assert answer.verdict == "All workers agree, but this Redis keeps no limits now."
    assert answer.code == 1


def test_a_redis_that_evicts_is_on_with_a_warning(empty_redis: AnyRedis, own_redis: Redis) -> None:
    """A policy is not always the operator's to change, and as long as there is memory nothing is evicted."""
    own_redis.client().config_set("maxmemory-policy", "volatile-ttl")
    with Cluster(f"{empty_redis.url}/0", own_redis.url) as cluster:
        cluster.start(1, pool="solo", options=["-l", "INFO"])
        answer = check(cluster)

        assert answer.of("warning")[0].startswith("this Redis may evict keys (maxmemory-policy volatile-ttl)")
        assert answer.code == 0
        assert "global-rate: no task has a limit" in cluster.log("w0")


def test_nobody_answers(empty_redis: AnyRedis) -> None:
    """No worker, then a broker that is away, named without its password."""
    url = empty_redis.url
    with Cluster(f"{url}/0", f"{url}/1") as cluster:
        alone = check(cluster, "-t", "0.5")
    broker = f"redis://:{SECRET}@127.0.0.1:{free_port()}/0"
    with Cluster(broker, f"{url}/1") as cluster:
        away = check(cluster)

    assert alone.verdict == "No worker has answered within 0.5 s."
    assert away.verdict == f"No worker can be asked: the broker {broker.replace(SECRET, '**')} cannot be reached."
    assert alone.of("Redis") != []
    assert away.of("Redis") != []
    assert (alone.code, away.code) == (1, 1)


def test_the_option_and_the_environment_of_the_workers_name_the_redis(rabbitmq: str, empty_redis: AnyRedis) -> None:
    """On RabbitMQ, workers that get their Redis by an option have an application that does not know it."""
    limits = f"{empty_redis.url}/1"
    with Cluster(rabbitmq, extension=False) as cluster:
        cluster.start(1, pool="solo", options=["--global-rate-url", limits])
        answers = [
            check(cluster),
            check(cluster, "--global-rate-url", limits),
            check(cluster, CELERY_WORKER_GLOBAL_RATE_URL=limits),
        ]

    assert [answer.code for answer in answers] == [1, 0, 0]
    assert answers[0].error.startswith("global-rate: global_rate_url is not set")
    assert [answer.of("w0@lab") for answer in answers] == [[], ["on"], ["on"]]


@pytest.mark.parametrize(
    ("conf", "options", "code", "words"),
    [
        ({"global_rate_key_prefix": "a{b}"}, [], 1, "global-rate: global_rate_key_prefix = 'a{b}': use a non-empty"),
        ({"global_rate_url": f"http://:{SECRET}@h"}, [], 1, "global-rate: global_rate_url = http://...: use one of"),
        ({}, ["-t", "0"], 2, "Invalid value for '-t' / '--timeout'"),
        ({}, ["-t", "soon"], 2, "Invalid value for '-t' / '--timeout'"),
        ({}, ["one@host"], 2, "unexpected extra argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_invalid_input_is_refused(conf: dict[str, Any], options: Sequence[str], code: int, words: str) -> None:
    with Cluster("redis://localhost:6379/0", conf=conf) as cluster:
        answer = check(cluster, *options)

    assert words in answer.error
    assert answer.lines == []
    assert answer.code == code
    assert code == 2 or answer.error.count("\n") == 1


def test_an_application_may_have_options_for_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`app.user_options['preload']`: Celery adds them to ours too, and before 5.7 also passes them on."""
    monkeypatch.setattr(global_rate, "params", [click.Option(["--theme"])])

    assert CliRunner().invoke(global_rate, ["--theme", "dark", "check", "--help"]).exit_code == 0


ENTRY = {
    "version": __version__,
    "redis": "redis://h/0",
    "run_id": "a",
    "database": 0,
    "outage": None,
    "prefix": "p:",
}


@pytest.mark.parametrize(
    ("entry", "here", "found"),
    [
        ({}, "a", []),
        ({"redis": "redis://other/0"}, "a", []),
        ({"run_id": "b"}, "a", ["another Redis: redis://h/0"]),
        ({"database": 1}, "a", ["another Redis: redis://h/0"]),
        ({"redis": "redis://other/0"}, "", ["another Redis: redis://other/0"]),
        ({"redis": "redis://other/0", "run_id": ""}, "a", ["another Redis: redis://other/0"]),
        ({"run_id": ""}, "a", []),
        ({"run_id": "b", "outage": "E"}, "a", ["no answer from its Redis (E)"]),
        (
            {"redis": "redis://other/0", "outage": "E"},
            "a",
            ["another Redis: redis://other/0", "no answer from its Redis (E)"],
        ),
        ({"prefix": "q:", "version": "9"}, "a", ["another version: 9", "another prefix: q:"]),
    ],
)
def test_what_makes_a_difference(entry: dict[str, Any], here: str, found: list[str]) -> None:
    """An identity counts where both know it, and where the worker's is of this moment; else the address."""
    reference = Reference("redis://h/0", 0, "p:", Server(run_id=here))

    assert reference.differences({"global_rate": {**ENTRY, **entry}}) == found


def test_workers_without_an_entry_or_with_one_of_another_version() -> None:
    reference = Reference("redis://h/0", 0, "p:")

    assert reference.differences({"global_rate": {"redis": "redis://h/0"}}) == ["another version: unknown"]
    assert reference.differences({"total": {}}) == ["off"]
    assert reference.differences({"error": "KeyError('x')"}) == ["unknown: it failed to answer, see its log"]
