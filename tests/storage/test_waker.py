"""Waking an event loop from other threads: on a real hub."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from celery_global_rate.storage.waker import Waker

from .wire import NOISE_S, Loop


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


def test_another_thread_wakes_a_sleeping_loop(loop: Loop, waker: Waker) -> None:
    """Without a timer the loop sleeps for a second; five times over, the callback runs within 50 ms of the call."""
    for _ in range(5):
        called: list[float] = []
        ran: list[float] = []

        def call(called: list[float] = called, ran: list[float] = ran) -> None:
            called.append(time.monotonic())
            waker.call(lambda: ran.append(time.monotonic()))

        caller = threading.Timer(0.05, call)
        caller.start()
        begin = time.monotonic()
        loop.turn()
        slept_s = time.monotonic() - begin
        caller.join()
        loop.run_until(partial(bool, ran))

        assert 0 <= ran[0] - called[0] < NOISE_S
        assert slept_s < 0.05 + 0.05 + NOISE_S


def test_callbacks_run_in_order_and_an_error_does_not_stop_the_others(
    loop: Loop, waker: Waker, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[int] = []
    for number in range(10):
        waker.call(partial(ran.append, number))
        if number == 4:
            waker.call(partial(ran.index, "an error of ours"))  # type: ignore[arg-type]  # it raises
    loop.run_until(lambda: len(ran) == 10)

    assert ran == list(range(10))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "an action in the event loop failed" in caplog.text


def test_nothing_is_lost_between_many_threads(loop: Loop, waker: Waker) -> None:
    """4 threads with 2000 calls each: all run, in each thread's order, although the socket pair holds fewer bytes."""
    ran: list[tuple[int, int]] = []

    def call(thread: int) -> None:
        for number in range(2000):
            waker.call(partial(ran.append, (thread, number)))

    callers = [threading.Thread(target=call, args=[thread]) for thread in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    loop.run_until(lambda: len(ran) == 8000)

    for thread in range(4):
        assert [number for who, number in ran if who == thread] == list(range(2000))


def test_calls_that_wait_together_wake_the_loop_once(loop: Loop, waker: Waker) -> None:
    """One byte for ten calls, and another one for the first call after the loop has begun to run them."""
    ran: list[int] = []

    def first() -> None:
        ran.append(0)
        waker.call(partial(ran.append, 10))

    waker.call(first)
    for number in range(1, 10):
        waker.call(partial(ran.append, number))
    sent = waker._reader.recv(4096, socket.MSG_PEEK)
    loop.run_until(lambda: len(ran) == 11)

    assert sent == b"\0"
    assert ran == list(range(11))


def test_what_waits_at_a_detach_is_dropped_and_a_new_hub_is_woken(loop: Loop, waker: Waker) -> None:
    ran: list[str] = []
    waker.call(lambda: ran.append("before"))
    waker.detach(loop.hub)
    loop.reset()
    waker.attach(loop.hub)
    waker.call(lambda: ran.append("after"))
    loop.run_until(lambda: ran)

    assert ran == ["after"]
