"""By which ways and with which rights a Redis keeps limits: a unix socket, and a user with the least rights."""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError

from celery_global_rate.cli.check import Reference
from celery_global_rate.limits.bucket import Bucket, own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.override import set_limits
from celery_global_rate.limits.redis_clock import RedisClock
from celery_global_rate.limits.reservation import SlotsInHand
from celery_global_rate.settings import Settings
from celery_global_rate.storage.back_offs import BackOffs
from celery_global_rate.storage.blocking_store import BlockingStore
from celery_global_rate.storage.heartbeat import Heartbeat
from celery_global_rate.storage.limiter import Limiter
from celery_global_rate.storage.outage import Outage
from celery_global_rate.storage.outage_policies import Hold
from celery_global_rate.storage.override_feed import OverrideFeed
from celery_global_rate.storage.overrides import Overrides
from celery_global_rate.storage.scripts import news_channel
from testbed.cluster import Cluster
from testbed.scenarios import backlog
from testbed.server import Redis, redis_binary, root
from testbed.stalls import stalls_of

from ..conftest import Figures, Server
from ..storage.wire import Wire
from .operator import FROM_REDIS_S, check, control, global_rate

PREFIX = "global-rate:v1:lab"
SECRET = "s3cret"
LIMIT = Limit(10_000)  # 100/s
#: What the documentation says of rights without which limits are kept all the same.
FOR_OPERATORS = {"+info", "+ping"}


def documented() -> list[str]:
    """The words of the command in the documentation, for the prefix and the password of these tests."""
    text = (root() / "docs" / "configuration.rst").read_text()
    (command,) = re.findall(r"^   redis-cli (ACL SETUSER .*?)\n\n", text, re.DOTALL | re.MULTILINE)
    command = command.replace("\\\n", "").replace("PASSWORD", SECRET).replace("global-rate:v1:proj", PREFIX)
    return shlex.split(command)


RIGHTS = [word for word in documented() if word[0] in "+~&"]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Redis]:
    """A server that has a user `limits`."""
    if redis_binary() is None:
        pytest.skip("no Redis to run")
    with contextlib.closing(Redis()) as server:
        yield server.start()


def allow(server: Redis, without: str = "") -> str:
    """Give the user all documented rights but one, and return the URL; nothing is in the server, nor in its log."""
    client = server.client()
    client.flushall()
    client.script_flush()
    client.execute_command("ACL", "DELUSER", "limits")
    client.execute_command(*[word for word in documented() if word != without])
    client.execute_command("ACL", "LOG", "RESET")
    return f"redis://limits:{SECRET}@127.0.0.1:{server.port}/1"


def refused(server: Redis) -> set[str]:
    """The commands, keys and channels that the server has refused; redis-py's introduction aside."""
    with redis.Redis(port=server.port, decode_responses=True) as client:
        return {entry["object"] for entry in client.acl_log()} - {"client|setinfo"}


def failures(url: str, admin: redis.Redis) -> list[str]:
    """Do all that a worker and an operator do with a Redis, and report what does not work."""
    failed: list[str] = []
    answers: list[Any] = []

    def expect(what: str, works: object) -> None:
        if not works:
            failed.append(what)

    with Wire(url) as wire:
        wire.settings = Settings(url, {}, PREFIX, 100)
        clock = RedisClock()
        overrides = Overrides(clock, lambda name: None)
        offs = BackOffs(clock, lambda name, value: None)
        limiter = Limiter(
            wire.connection, PREFIX, "w", clock, Outage(url, Hold(), lambda: None), Hold(), overrides, offs
        )
        channel = news_channel(PREFIX, 1)
        members = Heartbeat(wire.connection, PREFIX, "w", channel, lambda at: None)
        news = OverrideFeed(
            wire.settings.connection,
            wire.waker,
            wire.connection,
            PREFIX,
            channel,
            overrides,
            members,
            offs,
            lambda at: None,
        )
        try:
            wire.open()
        except AssertionError:
            return ["connect"]
        news.attach(wire.loop.hub)

        def reserve(*more: Bucket) -> SlotsInHand | None:
            known = len(answers)
            limiter.reserve("limited", (*own("limited", LIMIT), *more), 3, answers.append)
            wire.loop.run_until(lambda: len(answers) > known)
            return answers[-1]

        def given() -> int:
            return int(admin.hget(f"{{{PREFIX}}}:bucket:limited", "given") or 0)

        def happens(condition: Callable[[], object]) -> bool:
            try:
                wire.loop.run_until(condition, 0.5)
            except AssertionError:
                return False
            return True

        first, second = reserve(), reserve()  # the second one by the name of the script
        expect("reserve", first and first.count and second)
        if second and second.count:
            before = given()
            limiter.give_back(own("limited", LIMIT), second)
            expect("give back", happens(lambda: given() == before - second.left))
        shared = Bucket("api", "smooth:a", LIMIT, is_crossed=True)
        lane, again = reserve(shared), reserve(shared)
        expect("reserve in a lane", lane and lane.count and again)
        if again and again.count:
            before = given()
            limiter.give_back((*own("limited", LIMIT), shared), again)
            expect("give back in a lane", happens(lambda: given() == before - again.left))
        sliding = Bucket("quota", "sliding-10s", Limit.in_any("50/10s"))
        logged, last = reserve(sliding), reserve(sliding)
        expect("reserve in a sliding window", logged and logged.count and last)
        if last and last.count:
            key = f"{{{PREFIX}}}:limit:quota:sliding-10s"
            before = int(admin.hget(key, "given") or 0)
            limiter.give_back((*own("limited", LIMIT), sliding), last)
            expect("give back in one", happens(lambda: int(admin.hget(key, "given") or 0) == before - last.left))
        members.beat(0.0)
        expect("beat", happens(lambda: members.most == 1))
        wire.loop.run_for(0.1)  # subscribed by now, and it has beaten once more
        members.leave()
        wire.loop.run_for(0.05)
        expect("leave", not admin.zcard(f"{{{PREFIX}}}:workers"))
        try:
            with BlockingStore(wire.settings) as store:
                _, override = store.change("limited", set_limits((LIMIT,), "100/s", (), None), "test", "test")
                expect("set", override)
                expect("news", happens(lambda: overrides.get("limited")))
                expect("overrides", "limited" in store.overrides())
                expect("history", store.history("limited"))
                expect("states", store.states({"limited": [""]})["limited"][0].given >= 0)
        except RedisError as exc:
            failed.append(f"{type(exc).__name__}: {exc}")
            overrides.learn("limited", "1:a:0:{}")
        admin.delete(f"{{{PREFIX}}}:records", f"{{{PREFIX}}}:era")
        news.look()
        expect("keep", happens(lambda: admin.hexists(f"{{{PREFIX}}}:era", "id")))
        admin.delete(f"{{{PREFIX}}}:records")
        reserve()
        expect("keep by reserve", admin.hlen(f"{{{PREFIX}}}:records"))
        seconds, _ = admin.time()
        admin.hset(f"{{{PREFIX}}}:bucket:limited", mapping={"slot": (seconds + 3600) * 10**6, "slot_ps": 0, "lead": 0})
        expect("a clock that stepped back", reserve())
        news.detach()
    reference = Reference.ask(wire.settings, {})
    expect("check", reference.error is None)
    return failed


def test_the_documented_rights_suffice(guarded: Redis) -> None:
    url = allow(guarded)
    assert failures(url, guarded.client(1)) == []
    assert not refused(guarded)


@pytest.mark.parametrize("right", RIGHTS)
def test_each_documented_right_is_needed(guarded: Redis, right: str) -> None:
    """Without it something does not work. Two are for what operators are shown, as the documentation says."""
    url = allow(guarded, without=right)
    failed = failures(url, guarded.client(1))

    assert refused(guarded)
    assert bool(failed) == (right not in FOR_OPERATORS), failed


def test_a_worker_and_all_commands_with_the_least_rights(guarded: Redis, empty_redis: Server) -> None:
    """Nothing is refused, by the server's own log."""
    url = allow(guarded)
    with Cluster(f"{empty_redis.url}/0", url, "50/s", loglevel="INFO") as cluster:
        cluster.start(1)
        cluster.send("limited", 1500)
        cluster.wait_for(20, 10)
        assert "ok" in control(cluster, "100/s")[0]
        checked = check(cluster)
        for words in (("set", "limited", "80/s"), ("pause", "limited"), ("resume", "limited"), ("history", "limited")):
            global_rate(cluster, *words)
        shown = global_rate(cluster, "show")
        global_rate(cluster, "reset", "limited")
        cluster.wait_for(len(cluster.records("start", "limited")) + 20, 5)
        assert cluster.stop("w0") == 0
        log = cluster.log("w0")

    assert checked.of("w0@lab") == ["on"]
    assert "80/s" in shown
    assert "no answer" not in log
    assert SECRET not in log
    assert not refused(guarded)


@pytest.mark.parametrize("scheme", ["unix", "redis+socket"])
def test_a_worker_limits_over_a_unix_socket(empty_redis: Server, figures: Figures, scheme: str) -> None:
    """In its second database."""
    if redis_binary() is None:
        pytest.skip("no Redis to run")
    with tempfile.TemporaryDirectory(prefix="global-rate-socket-") as directory:
        path = Path(directory) / "redis.sock"
        database = "db" if scheme == "unix" else "virtual_host"
        with contextlib.closing(Redis(options=["--unixsocket", str(path)])) as server:
            server.start()
            limiter = f"{scheme}://{path}?{database}=2"
            with Cluster(f"{empty_redis.url}/0", limiter, "100/s") as cluster, stalls_of(cluster, server) as stalls:
                run = backlog(cluster, server.client(), 2, 3, stalls=stalls)
            keys = [server.client(number).dbsize() for number in range(3)]
    figures(f"{scheme}: {run}")

    assert run.kept
    assert 0.99 - run.stalled <= run.used <= 1.005
    assert keys[:2] == [0, 0]
    assert keys[2] >= 2


@pytest.mark.parametrize("where", ["options", "URL"])
def test_answers_are_bytes_whatever_the_options_say(empty_redis: Server, where: str) -> None:
    """An application may share its options with other clients. The override comes by the news alone, within 1.5 s."""
    url = f"{empty_redis.url}/1"
    conf: dict[str, Any] = {"worker_enable_remote_control": False}
    if where == "options":
        conf["global_rate_redis_options"] = {"decode_responses": True, "encoding": "utf-16", "protocol": 3}
    else:
        url += "?decode_responses=true&protocol=3"
    with Cluster(f"{empty_redis.url}/0", url, "1/h", conf=conf, loglevel="INFO") as cluster:
        cluster.start(1, pool="solo")
        cluster.send("limited", 30)
        cluster.wait_for(1, 10)
        time.sleep(0.5)
        global_rate(cluster, "set", "limited", "50/s")
        cluster.wait_for(20, FROM_REDIS_S)
        shown = global_rate(cluster, "show", "-t", "0")
        log = cluster.log("w0")

    assert "50/s" in shown
    assert "Traceback" not in log
    assert "no answer" not in log
