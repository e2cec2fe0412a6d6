"""How workers count each other: the script, and what a worker remembers of its answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from celery_global_rate.limits.redis_clock import RedisClock
from celery_global_rate.storage.back_offs import BackOffs
from celery_global_rate.storage.heartbeat import BEAT_S, FIRST_S, LIFE_S, MEMORY_S, Heartbeat
from celery_global_rate.storage.override_feed import OverrideFeed
from celery_global_rate.storage.overrides import Overrides
from celery_global_rate.storage.scripts import members_key, news_channel

from ..conftest import Figures, Server
from .replay import CHANNEL, NOW, PREFIX, Bucket
from .wire import NOISE_S, Wire

LIFE_US = 30_000_000


def test_who_beats_counts_and_counts_once(bucket: Bucket) -> None:
    assert [bucket.beat(NOW, worker) for worker in ("one", "two", "one", "three")] == [1, 2, 2, 3]


def test_who_has_not_beaten_for_its_life_does_not_count(bucket: Bucket) -> None:
    bucket.beat(NOW, "one")

    assert bucket.beat(NOW + LIFE_US - 1, "two") == 2
    assert bucket.beat(NOW + LIFE_US, "two") == 1


def test_who_wrote_its_time_on_a_clock_that_stepped_back_does_not_count(bucket: Bucket) -> None:
    bucket.beat(NOW, "one")

    assert bucket.beat(NOW - 1, "two") == 1


def test_the_count_expires_with_the_last_worker(bucket: Bucket) -> None:
    bucket.beat(NOW, "one")

    assert 29_000 < bucket.client.pttl(members_key(PREFIX)) <= 30_000


def test_the_others_are_told_of_who_is_new(bucket: Bucket) -> None:
    """Once, and again if it has not beaten for its life, whichever worker notices that."""
    with bucket.client.pubsub() as listener:
        listener.subscribe(CHANNEL)
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        for at_us, worker in ((0, "one"), (1, "one"), (2, "two"), (3, "two"), (LIFE_US + 1, "one")):
            bucket.beat(NOW + at_us, worker)
        bucket.client.publish(CHANNEL, "the end")
        heard = []
        while (message := listener.get_message(timeout=5)["data"]) != "the end":
            heard.append(message)

    assert heard == ["workers\n1", "workers\n2", "workers\n2"]


class Redis:
    """Replies with what it is given, or not at all; the rest is for the tests above."""

    def __init__(self) -> None:
        self.count: int | None = 1
        self.sent: list[Any] = []

    def send(self, command: tuple[Any, ...], answer: Callable[[object], None]) -> None:
        self.sent.append(command[0])
        answer(self.count if self.count is not None else ConnectionError())


def beats(members: Heartbeat, begin: int, end: int) -> list[float]:
    """The instants of all beats but the first one, looked for once a second."""
    found: list[float] = []
    for now in range(begin, end):
        if (next_s := members.keep_up(float(now))) not in found:
            found.append(next_s)
    return found


def test_a_worker_beats_often_at_first_and_then_every_ten_seconds() -> None:
    redis = Redis()
    members = Heartbeat(redis, PREFIX, "one", CHANNEL, lambda at: None)

    assert beats(members, 100, 140) == [101, 103, 107, 115, 125, 135, 145]
    assert redis.sent == ["EVAL"] * 7
    assert 3 * BEAT_S <= LIFE_S


def test_it_beats_often_again_after_a_worker_it_has_not_heard_of() -> None:
    """The timer has to know of it. A worker that it has heard of, or that has gone, changes nothing."""
    redis, woken = Redis(), list[float]()
    members = Heartbeat(redis, PREFIX, "one", CHANNEL, woken.append)
    beats(members, 100, 140)
    redis.count = 2
    members.hear(141.0, 2)
    heard = beats(members, 141, 150)
    redis.count = 1
    gone = beats(members, 150, 160)
    redis.count = 3
    missed = beats(members, 160, 185)

    assert (heard, gone) == ([145, 155], [155, 165])
    assert missed == [165, 166, 168, 172, 180, 190]
    assert woken == [101, 166]


def test_the_largest_count_of_a_minute_counts_and_an_outage_keeps_the_last() -> None:
    redis = Redis()
    members = Heartbeat(redis, PREFIX, "one", CHANNEL, lambda at: None)
    most = [members.most]
    for now, count in ((0, 4), (10, 3), (MEMORY_S, 2), (MEMORY_S + 1, 2), (MEMORY_S + 11, 2), (500, None), (900, None)):
        redis.count = count
        members.beat(now)
        most.append(members.most)

    assert most == [0, 4, 4, 4, 3, 2, 2, 2]


class Fleet:
    """Workers that know of each other, in one loop, each with its own connections.

    Args:
        url: of the Redis.
        hears: whether news reaches them.

    Attributes:
        within_s: how soon all are to know of all, in seconds.
    """

    def __init__(self, url: str, hears: bool) -> None:
        self._url, self._hears = url, hears
        self.within_s = (0.2 if hears else FIRST_S) + NOISE_S
        self._stack = ExitStack()
        self.members: list[Heartbeat] = []

    def __enter__(self) -> Fleet:
        self._wire = self._stack.enter_context(Wire(self._url))
        self._wire.open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def join(self) -> None:
        """One more."""
        wire, channel = self._wire, news_channel(PREFIX, 9)
        members = Heartbeat(wire.connection, PREFIX, f"w{len(self.members)}", channel, lambda at: None)
        self.members.append(members)
        if self._hears:
            overrides, offs = (
                Overrides(RedisClock(), lambda name: None),
                BackOffs(RedisClock(), lambda name, value: None),
            )
            feed = wire.settings.connection, wire.waker, wire.connection, PREFIX, channel
            news = OverrideFeed(*feed, overrides, members, offs, lambda at: None)
            news.attach(wire.loop.hub)
            self._stack.callback(news.detach)
        members.keep_up(time.monotonic())

    def knows_in_s(self, within_s: float) -> float:
        """How long it takes until all know of all, in seconds."""

        def tick() -> None:
            for members in self.members:
                members.keep_up(time.monotonic())

        begin = time.monotonic()
        entry = self._wire.loop.hub.timer.call_repeatedly(0.01, tick)
        try:
            self._wire.loop.run_until(lambda: all(it.most == len(self.members) for it in self.members), within_s)
        finally:
            entry.cancel()
        return time.monotonic() - begin


@pytest.fixture(params=[True, False], ids=["news", "no news"])
def fleet(request: pytest.FixtureRequest, redis_server: Server, redis_client: redis.Redis) -> Iterator[Fleet]:
    with Fleet(f"{redis_server.url}/9", request.param) as fleet:
        yield fleet


def test_ten_that_come_at_once_know_of_each_other(fleet: Fleet, figures: Figures) -> None:
    """By the news at once; without it when they beat again, a second later."""
    for _ in range(10):
        fleet.join()
    figures(f"ten workers at once: all know of all after {fleet.knows_in_s(fleet.within_s):.3f} s")


def test_each_of_five_that_come_one_after_the_other_is_known_of(fleet: Fleet, figures: Figures) -> None:
    """An autoscaler adds one a second. Without news they beat every second, because each answer is a larger number."""
    took_s = []
    for _ in range(5):
        begin = time.monotonic()
        fleet.join()
        took_s.append(fleet.knows_in_s(fleet.within_s))
        fleet._wire.loop.run_for(max(0.0, begin + 1 - time.monotonic()))
    figures(f"five workers one a second: all know of all after {max(took_s):.3f} s at the most")
