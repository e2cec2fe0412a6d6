"""Being woken by kombu's event loop in time, and waking it: on a real hub."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from celery_global_rate.storage.waker import Waker
from celery_global_rate.worker.loop import Alarm, HubThread

from ..storage.wire import NOISE_S, Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def waker(loop: Loop) -> Iterator[Waker]:
    waker = Waker()
    waker.attach(loop.hub)
    yield waker
    waker.close()


class Bell:
    """An alarm in a loop, and when it rang."""

    def __init__(self, loop: Loop, waker: Waker) -> None:
        self.rang: list[float] = []
        self.alarm = Alarm(lambda: self.rang.append(time.monotonic()), waker)
        self.alarm.attach(loop.hub)


@pytest.fixture
def bell(loop: Loop, waker: Waker) -> Bell:
    return Bell(loop, waker)


def test_an_alarm_rings_at_its_instant(loop: Loop, bell: Bell) -> None:
    """Of 20 alarms none rings early, and half of them ring less than 3 ms late.

    The loop sleeps in whole milliseconds, rounded up at most, and looks at the clock before it rings: late by up to
    1 ms and two turns of well below 1 ms. A single one may meet the noise of the machine as well.
    """
    late_s = []

    def has_rung(count: int) -> bool:
        return len(bell.rang) == count

    for number in range(20):
        at = time.monotonic() + 0.01 + number / 7000
        bell.alarm.set(at)
        loop.run_until(partial(has_rung, number + 1))
        late_s.append(bell.rang[-1] - at)

    assert min(late_s) >= 0
    assert sorted(late_s)[10] < 0.003
    assert max(late_s) < 0.003 + NOISE_S


def test_the_earlier_instant_wins(loop: Loop, bell: Bell) -> None:
    """Set to 0.1 s, then 0.05 s, then 0.2 s: it rings once, at 0.05 s, and never for the others."""
    now = time.monotonic()
    for after_s in (0.1, 0.05, 0.2):
        bell.alarm.set(now + after_s)
    loop.run_for(0.3)

    assert len(bell.rang) == 1
    assert 0.05 <= bell.rang[0] - now < 0.1


def test_a_detached_alarm_is_silent_until_it_is_set_in_a_loop_again(loop: Loop, bell: Bell) -> None:
    bell.alarm.set(time.monotonic() + 0.02)
    bell.alarm.detach()
    bell.alarm.set(time.monotonic() + 0.02)
    bell.alarm.detach()
    loop.run_for(0.1)
    silent = not bell.rang
    loop.reset()
    bell.alarm.attach(loop.hub)
    at = time.monotonic() + 0.02
    bell.alarm.set(at)
    loop.run_until(lambda: bell.rang)

    assert silent
    assert 0 <= bell.rang[0] - at < NOISE_S


def test_an_alarm_rings_beside_many_other_timers(loop: Loop, bell: Bell) -> None:
    """With 100 timers due at the same moment it rings once within 20 ms, and all of the 100 ring within NOISE_S.

    The loop fires ten a turn: the alarm is looked at in the first, the others need ten turns without a sleep.
    """
    at = time.monotonic() + 0.05
    others: list[float] = []
    for _ in range(100):
        loop.hub.timer.call_at(at, lambda: others.append(time.monotonic()))
    bell.alarm.set(at)
    loop.run_until(lambda: bell.rang and len(others) == 100)
    loop.run_for(0.02)

    assert len(bell.rang) == 1
    assert 0 <= bell.rang[0] - at < 0.02
    assert max(others) - at < NOISE_S


def test_an_alarm_rings_soon_after_ten_other_timers(loop: Loop, bell: Bell) -> None:
    """Ten timers are due and the alarm follows 20 ms later: after the ten the loop would sleep for a second."""
    at = time.monotonic() + 0.05
    for _ in range(10):
        loop.hub.timer.call_at(at, lambda: None)
    bell.alarm.set(at + 0.02)
    loop.run_until(lambda: bell.rang)

    assert 0 <= bell.rang[0] - at - 0.02 < NOISE_S


def test_a_plain_timer_beside_others_sleeps_for_a_second(loop: Loop, waker: Waker) -> None:
    """Why there is an Alarm: kombu fires ten timers and then sleeps for a second, with more due.

    Where kombu one day looks at what it left, this test goes, and half of Alarm with it.
    """
    at = time.monotonic() + 0.05
    for _ in range(11):
        loop.hub.timer.call_at(at, lambda: None)
    rang: list[float] = []
    loop.hub.timer.call_at(at + 1e-6, lambda: rang.append(time.monotonic()))
    loop.run_until(lambda: rang)

    assert 0.5 < rang[0] - at < 1.0 + 2 * NOISE_S


def test_a_loop_of_our_own_turns_until_it_is_stopped() -> None:
    """A timer fires in it at its instant, and what is called last runs in the same thread."""
    threads: list[int] = []
    lateness_s: list[float] = []
    thread = HubThread("own")

    def attach(hub: Any) -> None:
        threads.append(threading.get_ident())
        at = time.monotonic() + 0.1
        hub.timer.call_at(at, lambda: lateness_s.append(time.monotonic() - at))

    thread.start(attach)
    deadline = time.monotonic() + 2
    while not lateness_s:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    thread.stop(lambda hub: threads.append(threading.get_ident()))

    assert 0 <= lateness_s[0] < NOISE_S
    assert len(threads) == 2
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    assert not any(each.name == "own" for each in threading.enumerate())


def test_a_loop_that_was_blocked_knows_for_how_long_and_soon_forgets(
    loop: Loop, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 0.3 s for what counts as blocked: 0.5 s without a turn, reported in the turn and for 0.3 s after it."""
    monkeypatch.setattr("celery_global_rate.worker.loop.BLOCKED_S", 0.3)
    loop.tick(0.02)
    loop.run_for(0.05)
    turning = bell.alarm.blocked_s
    time.sleep(0.5)
    blocked = bell.alarm.blocked_s
    loop.run_for(0.02)
    resumed = bell.alarm.blocked_s
    loop.run_for(0.35)

    assert turning == 0
    assert 0.5 <= blocked <= 0.55 + NOISE_S
    assert blocked <= resumed <= blocked + 0.02 + NOISE_S
    assert bell.alarm.blocked_s == 0
