"""What operators set counts for callers as it does for workers, and at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from celery_global_rate import AcquireTimeout, RateLimiter
from celery_global_rate.storage.back_offs import note
from celery_global_rate.storage.blocking_store import BlockingStore
from celery_global_rate.storage.location import Location
from testbed.meanwhile import wait

from .conftest import Bench
from .test_blocking import NOISE_S, refused, took_s


def wait_for(limiter: RateLimiter, slots: int) -> None:
    for _ in range(slots):
        limiter.acquire()


#: How soon an override is in force everywhere, in seconds.
SOON_S = 0.25


def test_a_rate_that_is_set_is_in_force_for_those_that_wait(bench: Bench) -> None:
    limiter = bench.limiter("1/m")
    limiter.acquire()
    with ThreadPoolExecutor(20) as threads:
        waiting = [threads.submit(limiter.acquire) for _ in range(20)]
        time.sleep(0.1)
        assert not any(each.done() for each in waiting)
        bench.set("100/s")
        seconds = took_s(lambda: [each.result() for each in waiting])

    assert 0.15 <= seconds <= 0.2 + SOON_S + NOISE_S


def test_without_a_limit_all_go_on_at_once(bench: Bench) -> None:
    limiter = bench.limiter("1/m")
    limiter.acquire()
    with ThreadPoolExecutor(20) as threads:
        waiting = [threads.submit(limiter.acquire) for _ in range(20)]
        time.sleep(0.1)
        bench.set("")
        seconds = took_s(lambda: [each.result() for each in waiting])

    assert seconds <= SOON_S + NOISE_S
    assert took_s(lambda: wait_for(limiter, 50)) < NOISE_S
    assert all(limiter.try_acquire() for _ in range(50))


def test_a_limiter_that_is_made_later_obeys(bench: Bench) -> None:
    """Its first call tells it: Redis gives no slot to a caller with an outdated override."""
    bench.set("100/s")
    limiter = bench.limiter("1/m")

    assert took_s(lambda: wait_for(limiter, 11)) < 0.1 + NOISE_S


def test_a_pause_stops_all_until_the_resume(bench: Bench) -> None:
    limiter = bench.limiter("100/s")
    limiter.acquire()
    bench.pause()
    wait(lambda: not limiter.try_acquire(), SOON_S)
    time.sleep(0.05)

    assert not limiter.try_acquire()
    refusal, seconds = refused(limiter, 60)
    assert (refusal.retry_after, seconds < NOISE_S) == (None, True), "nobody knows the end of such a pause"
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(limiter.acquire)
        time.sleep(0.2)
        assert not waiting.done()
        bench.resume()
        assert took_s(waiting.result) <= SOON_S + NOISE_S


def test_a_pause_with_an_end_is_known_to_those_that_give_up(bench: Bench) -> None:
    limiter = bench.limiter("100/s")
    limiter.acquire()
    with BlockingStore(Location(bench.url, {}, bench.prefix)) as store:
        bench.pause(until_us=store.now_us() + 1_000_000)
    wait(lambda: not limiter.try_acquire(), SOON_S)
    refusal, seconds = refused(limiter, 0.3)

    assert seconds < NOISE_S
    assert 0.4 < (refusal.retry_after or 0) <= 1
    begin = time.monotonic()
    limiter.acquire(2)
    assert 0.4 < time.monotonic() - begin <= 1 + NOISE_S


def test_those_that_wait_give_up_at_once_when_a_pause_begins_that_outlasts_them(bench: Bench) -> None:
    limiter = bench.limiter("1/s")
    limiter.acquire()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(limiter.acquire, 5)
        time.sleep(0.1)
        bench.pause()
        begin = time.monotonic()
        with pytest.raises(AcquireTimeout):
            waiting.result()

    assert time.monotonic() - begin < SOON_S + NOISE_S


def test_an_override_is_of_one_name(bench: Bench) -> None:
    limiter, other = bench.limiter("1/m"), bench.limiter("1/m", name="other")
    bench.set("100/s", name="other")

    assert took_s(lambda: wait_for(other, 11)) < 0.1 + NOISE_S
    assert [limiter.try_acquire() for _ in range(2)] == [True, False]


def test_a_pause_that_an_api_asks_a_task_for_stops_callers_as_well(bench: Bench) -> None:
    """For the key that the task had, and no other; those that give up before its end do so at once."""
    limiter = bench.limiter("100/s")
    for key in ("ann", "bob"):
        limiter.acquire(key=key)
    begin = time.monotonic()
    with BlockingStore(Location(bench.url, {}, bench.prefix)) as store:
        store.back_off("crm", ["smooth:ann"], 800_000, note("crm", "ann", "429"))
    time.sleep(0.05)

    assert not limiter.try_acquire("ann")
    assert limiter.try_acquire("bob")
    started = time.monotonic()
    with pytest.raises(AcquireTimeout) as refusal:
        limiter.acquire(0.2, key="ann")
    assert time.monotonic() - started < NOISE_S
    assert 0.3 < (refusal.value.retry_after or 0) <= 0.8
    limiter.acquire(key="ann")
    assert 0.8 <= time.monotonic() - begin <= 0.8 + 2 * NOISE_S
