"""A pause that an API has asked for: callers wait for its end, whoever was told of it."""

from __future__ import annotations

import math
import threading
import time

import pytest

from celery_global_rate import AcquireTimeout, RateLimiter
from celery_global_rate.storage.scripts import bucket_key
from testbed.server import free_port

from .conftest import Bench


def other(bench: Bench) -> RateLimiter:
    """One of another process, as far as its bucket knows: it has its own connection."""
    return bench.limiter("100/s", on_outage="hold")


def test_nobody_has_a_slot_before_it_is_over(bench: Bench) -> None:
    """Slots in hand are let go of, and the callers that wait have theirs afterwards, an interval apart."""
    limiter, beside = bench.limiter("20/s"), other(bench)
    for it in (limiter, beside):
        it.acquire()
    begin = time.monotonic()
    instants: list[float] = []

    def call() -> None:
        limiter.acquire()
        instants.append(time.monotonic())

    threads = [threading.Thread(target=call) for _ in range(9)]
    for thread in threads:
        thread.start()
    time.sleep(0.12)
    limiter.back_off(1)
    told = time.monotonic()
    time.sleep(0.1)
    early = len(instants)
    assert not beside.try_acquire()
    with pytest.raises(AcquireTimeout) as refused:
        beside.acquire(timeout=0.3)
    assert time.monotonic() - told < 0.4, "it is known at once that there is none in time"
    for thread in threads:
        thread.join(10)

    assert instants[early] - told >= 0.99
    assert early <= (told + 0.1 - begin) * 20 + 2
    assert refused.value.retry_after == pytest.approx(0.9, abs=0.1)
    assert instants[-1] - instants[early] >= (len(instants) - early - 2) / 20


def test_only_the_bucket_of_that_value(bench: Bench) -> None:
    limiter = bench.limiter("100/s")
    limiter.acquire(key="a/b")
    limiter.back_off(5, key="a/b")
    time.sleep(0.1)

    assert limiter.try_acquire(key="c")
    assert not limiter.try_acquire(key="a/b")
    assert int(bench.client.hget(bucket_key(bench.prefix, "crm", "smooth:a%2Fb"), "off_length") or 0) == 5_000_000


def test_all_limits_and_an_hour_at_the_most(bench: Bench) -> None:
    limiter = bench.limiter([{"rate": "10/s"}, {"rate": "50/m", "window": "fixed"}])
    limiter.acquire()
    limiter.back_off(1e9)
    time.sleep(0.1)

    lengths = [bench.client.hget(bucket_key(bench.prefix, "crm", it), "off_length") for it in ("smooth", "fixed-m")]
    assert lengths == ["3600000000"] * 2


@pytest.mark.parametrize("retry_after", [0, -1, math.nan, math.inf, "5", None, True])
def test_what_is_no_length_of_time(bench: Bench, retry_after: object) -> None:
    with pytest.raises(ValueError, match=r"retry_after = .*: use a number of seconds above 0"):
        bench.limiter().back_off(retry_after)  # type: ignore[arg-type]


def test_a_redis_that_is_away_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    limiter = RateLimiter(f"redis://:s3cret@127.0.0.1:{free_port()}/0", "crm", "10/s", prefix="p")
    limiter.back_off(5)
    deadline = time.monotonic() + 5
    while not (lines := [it.getMessage() for it in caplog.records if "back off" in it.getMessage()]):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    assert lines[0].startswith("global-rate: crm does not back off: the Redis at redis://127.0.0.1:")
    assert "s3cret" not in lines[0]
