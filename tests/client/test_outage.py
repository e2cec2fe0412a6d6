"""Redis is away: callers go on by the policy that they were made with."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from celery_global_rate import AcquireTimeout
from celery_global_rate.limits.timing import REPLY_TIMEOUT_S, SILENCE_S
from celery_global_rate.storage.override_feed import LOOK_S
from testbed.server import Redis

from ..conftest import Figures
from .conftest import Bench
from .test_blocking import NOISE_S, refused, took_s
from .test_overrides import wait_for

#: From its beginning until an outage counts, in seconds.
COUNTS_S = SILENCE_S + REPLY_TIMEOUT_S


@pytest.fixture
def own(own_redis: Redis) -> Bench:
    return Bench(own_redis, 0)


AWAY: list[Callable[[Redis], None]] = [Redis.stop, Redis.suspend]


@pytest.mark.parametrize("leave", AWAY, ids=["stopped", "silent"])
def test_hold_lets_nobody_go_on(own_redis: Redis, own: Bench, leave: Callable[[Redis], None]) -> None:
    limiter = own.limiter("100/s", on_outage="hold")
    limiter.acquire()
    leave(own_redis)

    assert took_s(lambda: limiter.try_acquire()) < 1.5 * SILENCE_S + NOISE_S
    assert not limiter.try_acquire()
    _, seconds = refused(limiter, 0.3)
    assert 0.3 <= seconds < 0.3 + NOISE_S
    if leave is Redis.suspend:
        own_redis.resume()
    else:
        own_redis.start()
    assert took_s(limiter.acquire) < 1 + NOISE_S


@pytest.mark.parametrize("leave", AWAY, ids=["stopped", "silent"])
def test_open_lets_all_go_on(own_redis: Redis, own: Bench, leave: Callable[[Redis], None]) -> None:
    limiter = own.limiter("1/m", on_outage="open")
    limiter.acquire()
    leave(own_redis)
    with ThreadPoolExecutor(10) as threads:
        seconds = took_s(lambda: list(threads.map(lambda _: limiter.acquire(), range(100))))

    noticed_s = LOOK_S if leave is Redis.suspend else 0
    assert seconds < noticed_s + COUNTS_S + 3 * NOISE_S
    assert all(limiter.try_acquire() for _ in range(10))


def test_share_goes_on_at_its_share_and_redis_takes_over_again(own_redis: Redis, own: Bench, figures: Figures) -> None:
    """One process alone has all of the rate: 100/s for two seconds of an outage of three."""
    limiter = own.limiter("100/s")
    limiter.acquire()
    own_redis.stop()
    begin = time.monotonic()
    instants = []
    while time.monotonic() - begin < 3.3:
        limiter.acquire()
        instants.append(time.monotonic() - begin)
    own_redis.start()
    back = time.monotonic()
    while own.given() < 5:
        limiter.acquire()
    back_s = time.monotonic() - back
    during = [at for at in instants if 1.3 <= at < 3.3]
    figures(f"100/s, one process, without Redis: {len(during) / 2:.1f}/s; it gave out slots again after {back_s:.2f} s")

    assert 180 <= len(during) <= 202
    assert back_s < 1 + NOISE_S


def test_a_redis_that_was_never_there(own_redis: Redis, own: Bench) -> None:
    """It holds under `share`, as nobody knows how many share; the first answer comes with the first connection."""
    own_redis.stop()
    limiter, at_once = own.limiter("100/s"), own.limiter("100/s", name="open", on_outage="open")

    assert took_s(lambda: limiter.try_acquire()) < 1.5 * SILENCE_S + NOISE_S
    assert not limiter.try_acquire()
    with pytest.raises(AcquireTimeout):
        limiter.acquire(0.1)
    assert at_once.try_acquire()
    own_redis.start()
    assert took_s(limiter.acquire) < 1 + NOISE_S


def test_a_redis_that_restarts_while_callers_wait(own_redis: Redis, own: Bench) -> None:
    limiter = own.limiter("20/s")
    limiter.acquire()
    with ThreadPoolExecutor(20) as threads:
        waiting = [threads.submit(limiter.acquire) for _ in range(20)]
        own_redis.restart()
        assert took_s(lambda: [each.result() for each in waiting]) < 1 + COUNTS_S + NOISE_S


def test_a_redis_that_forgets_its_scripts(own_redis: Redis, own: Bench) -> None:
    limiter = own.limiter("100/s")
    limiter.acquire()
    own.client.script_flush()

    assert took_s(lambda: wait_for(limiter, 5)) < 0.05 + NOISE_S
