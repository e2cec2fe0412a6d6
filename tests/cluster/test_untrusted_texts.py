"""Names and texts from outside stay in their key, their field and their line."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.override import LONGEST, LONGEST_REASON, Override, parse_rate, set_limits
from celery_global_rate.limits.redis_clock import RedisClock
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

from ..conftest import Server
from ..storage.wire import Wire
from .operator import cluster_on, global_rate, kept_overrides

PREFIX = "global-rate:v1:test"
NAMES = ["a}b{c", "two\nlines", "nul\0", "a:b:bucket:c", "{global-rate:v1:other}:bucket:x", " ", "é", "x" * 1_000_000]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:30]))
def test_a_name_is_one_key_and_one_field(redis_server: Server, redis_client: redis.Redis, name: str) -> None:
    """Slots, a record and its news for a task that is called like that, and no key but its own."""
    heard: list[str] = []
    answers: list[Any] = []
    with Wire(f"{redis_server.url}/9") as wire:
        wire.settings = Settings(f"{redis_server.url}/9", {}, PREFIX, 100)
        overrides = Overrides(clock := RedisClock(), heard.append)
        offs = BackOffs(clock, lambda name, value: None)
        limiter = Limiter(
            wire.connection, PREFIX, "w", clock, Outage("", Hold(), lambda: None), Hold(), overrides, offs
        )
        channel = news_channel(PREFIX, 9)
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
        wire.open()
        news.attach(wire.loop.hub)
        wire.loop.run_for(0.1)
        limiter.reserve(name, own(name, Limit(10_000)), 1, answers.append)
        wire.loop.run_until(lambda: answers)
        with BlockingStore(wire.settings) as store:
            store.change(name, set_limits((Limit(10_000),), "100/s", ()), "me\n}", "test", "why\n\0{}")
            wire.loop.run_until(lambda: heard)
            kept, history = store.overrides(), store.history(name)
        news.detach()
    keys = {f"bucket:{name}", f"waiting:{name}", f"history:{name}", "records", "era", "workers"}

    assert answers[0] is not None
    assert answers[0].count == 1
    assert heard == [name]
    assert list(kept) == [name]
    assert (history[0].origin.by, history[0].origin.reason) == ("me }", "why {}")
    assert set(redis_client.keys()) == {f"{{{PREFIX}}}:{key}" for key in keys}


def test_a_reason_is_short(empty_redis: Server) -> None:
    """A worker would send it with every call."""
    with cluster_on(empty_redis, "1/s") as cluster:
        said = global_rate(cluster, "set", "limited", "5/s", "--reason", "x" * (LONGEST_REASON + 1), is_good=False)
        global_rate(cluster, "set", "limited", "5/s", "--reason", "x" * LONGEST_REASON)

    assert f"{LONGEST_REASON + 1} characters: write {LONGEST_REASON} or fewer" in said
    assert kept_overrides(empty_redis)["limited"]["reason"] == "x" * LONGEST_REASON


def test_a_record_that_somebody_else_has_written_is_not_sent_around() -> None:
    with pytest.raises(ValueError, match="it has 1000012 characters"):
        Override.parse("1:a:0:" + "{" + "x" * 1_000_004 + "}")
    assert LONGEST > 20 * LONGEST_REASON


def test_an_error_does_not_repeat_a_megabyte() -> None:
    with pytest.raises(ValueError, match="cannot be read") as refused:
        parse_rate("x" * 1_000_000)

    assert len(str(refused.value)) < 300
