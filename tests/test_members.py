"""How workers count each other: the script, and what a worker remembers of its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery_global_rate.members import BEAT_S, LIFE_S, MEMORY_S, Members
from celery_global_rate.script import members_key

from .replay import NOW, PREFIX, Bucket

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


class Redis:
    """Answers with what it is told to, or not at all; the rest is for the tests above."""

    def __init__(self) -> None:
        self.count: int | None = 1
        self.sent: list[Any] = []

    def send(self, command: tuple[Any, ...], answer: Callable[[object], None]) -> None:
        self.sent.append(command[0])
        answer(self.count if self.count is not None else ConnectionError())


def test_a_worker_beats_every_ten_seconds() -> None:
    redis = Redis()
    members = Members(redis, PREFIX, "one")

    assert members.keep_up(100.0) == members.keep_up(100.0 + BEAT_S - 0.001) == 100.0 + BEAT_S
    assert members.keep_up(100.0 + BEAT_S) == 100.0 + 2 * BEAT_S
    assert redis.sent == ["EVAL", "EVAL"]
    assert 3 * BEAT_S <= LIFE_S


def test_the_largest_count_of_a_minute_counts_and_an_outage_keeps_the_last() -> None:
    redis = Redis()
    members = Members(redis, PREFIX, "one")
    most = [members.most]
    for now, count in ((0, 4), (10, 3), (MEMORY_S, 2), (MEMORY_S + 1, 2), (MEMORY_S + 11, 2), (500, None), (900, None)):
        redis.count = count
        members.beat(now)
        most.append(members.most)

    assert most == [0, 4, 4, 4, 3, 2, 2, 2]
