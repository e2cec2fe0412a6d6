"""What a process remembers of pauses that APIs have asked for, and what it logs of them."""

from __future__ import annotations

import logging
import time

import pytest

from celery_global_rate.limits.redis_clock import RedisClock
from celery_global_rate.storage.back_offs import NEWS, BackOffs, note

NOW_US = 1_800_000_000_000_000
S = 1_000_000


class World:
    """A process whose clock is that of Redis, at NOW_US just now."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self.caplog = caplog
        self.now = time.monotonic()
        self.clock = RedisClock()
        self.clock.observe(NOW_US, self.now, self.now)
        self.changed: list[tuple[str, str | None]] = []
        self.back_offs = BackOffs(self.clock, lambda name, value: self.changed.append((name, value)))

    def hear(self, name: str, value: str | None, length_us: int, why: str = "HTTP 429") -> None:
        self.back_offs.hear(NOW_US + length_us, length_us, note(name, value, why).encode())

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.caplog.records]


@pytest.fixture
def world(caplog: pytest.LogCaptureFixture) -> World:
    return World(caplog)


def test_one_line_when_it_begins_and_one_when_it_is_over(world: World) -> None:
    world.hear("api", None, 2 * S, "HTTP 429, Retry-After 2 s")
    world.hear("api", None, 3 * S, "HTTP 429, Retry-After 3 s")

    assert world.back_offs.floor_us("api", None) == NOW_US + 3 * S
    assert world.back_offs.keep_up(world.now + 2.5) == pytest.approx(world.now + 3, abs=0.01)
    assert world.back_offs.keep_up(world.now + 3.1) == float("inf")
    assert world.lines == [
        "global-rate: api: backs off for 2.0 s: HTTP 429, Retry-After 2 s",
        "global-rate: api: the back-off of 3.1 s is over",
    ]
    assert world.changed == [("api", None)] * 2
    assert world.back_offs.floor_us("api", None) == 0


def test_it_may_be_ended(world: World) -> None:
    """That of another bucket goes on. News of the end of one that this process has not heard of is no line."""
    world.hear("api", None, 60 * S)
    world.hear("api", "a", 60 * S)
    for name, value in (("api", None), ("other", None)):
        world.back_offs.hear(NOW_US, 0, note(name, value, "an operator").encode())

    assert [world.back_offs.floor_us("api", value) for value in (None, "a")] == [0, NOW_US + 60 * S]
    assert world.changed == [("api", None), ("api", "a"), ("api", None), ("other", None)]
    assert [line.split(" of ")[0] for line in world.lines[2:]] == ["global-rate: api: the back-off"]


def test_each_value_of_a_key_by_itself(world: World) -> None:
    for value, seconds in (("a%2Fb", 2), ("c", 5), (None, 3)):
        world.hear("api", value, seconds * S)
    world.hear("other", "c", 9 * S)

    assert [it.value for it in world.back_offs.of("api")] == ["c", None, "a%2Fb"]
    assert [world.back_offs.floor_us("api", value) for value in ("a%2Fb", "d")] == [NOW_US + 2 * S, 0]
    assert world.lines[0] == "global-rate: api, a/b: backs off for 2.0 s: HTTP 429"
    assert world.back_offs.keep_up(world.now + 2.1) == pytest.approx(world.now + 3, abs=0.01)


def test_on_a_clock_that_steps_back_it_ends_when_it_was_to(world: World) -> None:
    """By this process' own clock. Its lanes are told, as the instant is in the future again."""
    world.hear("api", None, 2 * S)
    world.clock.observe(NOW_US - 3600 * S, world.now + 1, world.now + 1)
    world.changed.clear()

    world.back_offs.keep_up(world.now + 2.1)
    assert world.changed == [("api", None)]
    assert world.back_offs.floor_us("api", None) == 0


def test_news_that_cannot_be_read_is_somebody_elses(world: World) -> None:
    for text in (
        b"",
        b"{}",
        b"[]",
        b'["api"]',
        b'["api", null]',
        b"\xff",
        b'[5, null, ""]',
        b'["api", 5, ""]',
        b"[" * 9999,
    ):
        world.back_offs.hear(NOW_US + S, S, text)

    assert world.changed == []
    assert world.lines == []


def test_a_reason_is_on_one_line(world: World) -> None:
    world.hear("api", None, S, "first\nsecond" + "x" * 500)

    (line,) = world.lines
    assert "\n" not in line
    assert len(line) < 150


def test_the_news_is_told_from_overrides_and_workers() -> None:
    assert NEWS.fullmatch(b'off\n1800000000000000 2000000\n["a\nb", null, ""]')
    assert not NEWS.fullmatch(b"workers\n5")
    assert not NEWS.fullmatch(b"1:a:0:{}\nname")
    assert not NEWS.fullmatch(b"off\nname")
