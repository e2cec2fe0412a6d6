"""Threads that wait for slots, on a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from celery_global_rate import AcquireTimeout, RateLimiter

from .conftest import Bench

#: What a busy machine may add to a call, in seconds.
NOISE_S = 0.15


def took_s(call: Callable[[], object]) -> float:
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def refused(limiter: RateLimiter, timeout: float, cost: int = 1) -> tuple[AcquireTimeout, float]:
    """The refusal, and how long it took in seconds."""
    begin = time.monotonic()
    with pytest.raises(AcquireTimeout) as refusal:
        limiter.acquire(timeout, cost=cost)
    return refusal.value, time.monotonic() - begin


def test_slots_come_at_the_rate(bench: Bench) -> None:
    limiter = bench.limiter("100/s")
    begin = time.monotonic()
    for _ in range(31):
        limiter.acquire()

    assert 0.3 <= time.monotonic() - begin <= 0.3 + 2 * NOISE_S
    assert bench.given() == 31


def test_a_burst_comes_at_once(bench: Bench) -> None:
    limiter = bench.limiter({"rate": "1/m", "burst": 5})

    assert [limiter.try_acquire() for _ in range(7)] == [True] * 5 + [False] * 2
    assert bench.given() == 5


def test_who_does_not_wait_gets_what_lies_ready_and_is_not_counted_as_waiting(bench: Bench) -> None:
    limiter = bench.limiter("10/s")

    assert [limiter.try_acquire() for _ in range(3)] == [True, False, False]
    assert bench.waiting() == []
    time.sleep(0.11)
    assert [limiter.try_acquire() for _ in range(3)] == [True, False, False]
    assert bench.given() == 2


def test_many_that_do_not_wait_share_what_lies_ready(bench: Bench) -> None:
    limiter = bench.limiter({"rate": "1/m", "burst": 150})
    limiter.try_acquire()
    with ThreadPoolExecutor(50) as threads:
        found = list(threads.map(lambda _: limiter.try_acquire(), range(500)))

    assert (sum(found), bench.given()) == (149, 150)


@pytest.mark.parametrize("timeout", [0, -1, 0.001, 0.02, 1, 9])
def test_a_timeout_shorter_than_the_wait_is_refused_at_once_and_spends_nothing(bench: Bench, timeout: float) -> None:
    """Ten seconds to the next slot; what is spent is read from Redis before and after."""
    limiter = bench.limiter("6/m")
    limiter.acquire()
    before = bench.given()
    refusal, seconds = refused(limiter, timeout)
    again, seconds_again = refused(limiter, timeout)

    assert before == bench.given() == 1
    assert max(seconds, seconds_again) < NOISE_S
    if timeout != 0.001:  # of which Redis may not have heard in time
        assert 9.5 < (refusal.retry_after or 0) <= 10
        assert 9.5 < (again.retry_after or 0) <= 10
        assert f"no slot of crm within {timeout:.3g} s; the next may come in " in str(refusal)


def test_a_timeout_shorter_than_the_wait_takes_no_slot_from_the_next_caller(bench: Bench) -> None:
    """The next slot lies within the horizon, and a caller whose time ends before it has none."""
    limiter = bench.limiter("10/s")
    begin = time.monotonic()
    limiter.acquire()
    for _ in range(5):
        refusal, seconds = refused(limiter, 0.02)
        assert seconds < NOISE_S
        assert 0 < (refusal.retry_after or 0) <= 0.1
        if time.monotonic() - begin > 0.07:
            break
    limiter.acquire()

    assert 0.1 <= time.monotonic() - begin <= 0.1 + NOISE_S
    assert bench.given() == 2


def test_a_caller_with_others_before_it_gives_up_at_its_deadline_and_its_slot_is_for_them(bench: Bench) -> None:
    """Ten wait, of which each second one gives up after 0.25 s. Had their slots been spent on them, the last of the
    others would have its own half a second later.
    """
    limiter = bench.limiter("10/s")
    limiter.acquire()
    begin = time.monotonic()

    def call(number: int) -> float | None:
        try:
            limiter.acquire(0.25 if number % 2 else None)
        except AcquireTimeout:
            return None
        return time.monotonic() - begin

    with ThreadPoolExecutor(10) as threads:
        found = list(threads.map(call, range(10)))
    got = [at for at in found if at is not None]

    assert all(at is not None for at in found[::2])
    assert bench.given() == 1 + len(got)
    assert max(got) <= 0.1 * len(got) + 2 * NOISE_S


def test_costs_are_paid(bench: Bench) -> None:
    limiter = bench.limiter("100/s")
    begin = time.monotonic()
    limiter.acquire()
    limiter.acquire(cost=20)

    assert 0.2 <= time.monotonic() - begin <= 0.2 + NOISE_S
    assert bench.given() == 21
    assert not limiter.try_acquire(cost=20)
    assert bench.given() == 21


def test_a_cost_that_cannot_be_paid_in_time_is_refused_at_once_and_spends_nothing(bench: Bench) -> None:
    limiter = bench.limiter("10/s")
    limiter.acquire()
    refusal, seconds = refused(limiter, 1, cost=50)

    assert seconds < NOISE_S
    assert 4.5 < (refusal.retry_after or 0) <= 5
    assert bench.given() == 1
    time.sleep(0.1)
    assert limiter.try_acquire(), "nothing was booked for it"


def test_there_is_a_bucket_for_each_value_of_a_key(bench: Bench) -> None:
    limiter = bench.limiter("1/m")

    assert [limiter.try_acquire(key) for key in ("ann", "bob", "ann", 7, "7", None, [1], None)] == [
        *(True, True, False, True, False, True, False, False)
    ]
    assert {key for key in bench.client.scan_iter(f"*{bench.prefix}*") if ":limit:" in key} == {
        f"{{{bench.prefix}}}:limit:crm:smooth{value}" for value in ("", ":ann", ":bob", ":7")
    }


def test_several_limits_of_one_bucket_are_all_kept(bench: Bench) -> None:
    limiter = bench.limiter(["100/s", {"rate": "5/m", "window": "sliding"}])
    for _ in range(5):
        limiter.acquire(1)
    refusal, _ = refused(limiter, 1)

    assert not limiter.try_acquire()
    assert 58 < (refusal.retry_after or 0) <= 61
    assert (bench.given(), bench.given(window="sliding-m")) == (5, 5)


def test_it_is_a_context_manager_and_a_decorator(bench: Bench) -> None:
    limiter = bench.limiter("100/s")

    @limiter
    def add(one: int, two: int = 2) -> int:
        """Adds."""
        return one + two

    begin = time.monotonic()
    with limiter as entered:
        assert entered is limiter
    assert [add(number) for number in range(10)] == list(range(2, 12))
    seconds = time.monotonic() - begin

    assert (add(1, two=3), add.__name__, add.__doc__) == (4, "add", "Adds.")
    assert seconds >= 0.1
    assert bench.given() == 12


def test_limiters_of_one_bucket_share_it(bench: Bench) -> None:
    one, two, other = bench.limiter("1/m"), bench.limiter("1/m"), bench.limiter("1/m", name="other")

    assert [one.try_acquire(), two.try_acquire(), other.try_acquire()] == [True, False, True]


def test_waiting_threads_end_in_the_order_in_which_they_came(bench: Bench) -> None:
    limiter = bench.limiter("50/s")
    limiter.acquire()
    ended: list[int] = []

    def call(number: int) -> None:
        limiter.acquire()
        ended.append(number)

    threads = [threading.Thread(target=call, args=[number]) for number in range(10)]
    for thread in threads:
        thread.start()
        time.sleep(0.002)
    for thread in threads:
        thread.join()

    assert ended == list(range(10))
