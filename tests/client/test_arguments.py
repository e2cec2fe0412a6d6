"""What limiters are made of: what cannot be meant is refused, by name, value and remedy."""

from __future__ import annotations

import asyncio
import pickle
import re
from typing import Any

import pytest

from celery_global_rate import AcquireTimeout, AsyncRateLimiter, RateLimiter

URL = "redis://localhost:6379/0"


@pytest.mark.parametrize("kind", [RateLimiter, AsyncRateLimiter])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"url": "localhost"}, "url is not a URL: write it like redis://localhost:6379/0"),
        ({"url": "amqp://localhost"}, "url = amqp://...: use one of redis, rediss,"),
        ({"url": "redis://:se/cret@localhost"}, "url: its password has one of / ? # @ in it: write %2F"),
        ({"url": "redis://localhost?colour=red"}, "redis-py does not accept url = redis://localhost with"),
        ({"url": "sentinel://localhost"}, "the Sentinel service name is missing: set 'service_name' in redis_options"),
        ({"redis_options": {"colour": 1}}, "check its parameters, and the names in redis_options"),
        ({"redis_options": [1]}, "redis_options is not a dictionary but list: use one, of arguments for redis-py"),
        ({"name": "crm api"}, "name = 'crm api': use 1 to 64 letters, digits and any of _ . -"),
        ({"name": None}, "name = None: use 1 to 64 letters"),
        ({"prefix": ""}, "prefix = '': use a non-empty string without braces"),
        ({"prefix": "{a}"}, "prefix = '{a}': use a non-empty string without braces"),
        ({"on_outage": "wait"}, "on_outage = 'wait': use 'share', where each worker continues at its share"),
        ({"rate": "fast"}, "bucket crm: rate: rate 'fast' cannot be read: use N/s, N/m, N/h, N/d or N/30s"),
        ({"rate": None}, "bucket crm: rate = None: a bucket without a limit has no effect"),
        ({"rate": []}, "bucket crm: rate = []: use one rate, or a list of up to 4"),
        ({"rate": {"rate": "1/s", "burts": 2}}, "bucket crm: rate: 'burts' is not a field of it: did you mean 'burst'"),
        ({"rate": ["10/s", "5/s"]}, "bucket crm: rate = ['10/s', '5/s']: 10/s has no effect beside 5/s"),
        ({"rate": "5/month"}, "bucket crm: rate = '5/month': months differ in length: add 'window': 'fixed'"),
    ],
)
def test_what_cannot_be_meant_is_refused(kind: type[Any], arguments: dict[str, Any], error: str) -> None:
    given = {"url": URL, "name": "crm", "rate": "10/s", "prefix": "shop", **arguments}
    with pytest.raises(ValueError, match=re.escape(error)) as refused:
        kind(**given)

    assert "cret" not in str(refused.value)


def test_the_prefix_must_be_told() -> None:
    with pytest.raises(TypeError, match="prefix"):
        RateLimiter(URL, "crm", "10/s")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"cost": 0}, "cost = 0: use a whole number of units from 1 on"),
        ({"cost": 1.5}, "cost = 1.5: use a whole number"),
        ({"cost": True}, "cost = True: use a whole number"),
        ({"cost": 10**10}, "cost = 10000000000: crm has at most 1000000000 units for one call"),
        ({"timeout": "1"}, "timeout = '1': use seconds, or None to wait as long as it takes"),
        ({"timeout": True}, "timeout = True: use seconds"),
        ({"timeout": float("nan")}, "timeout = nan: use seconds"),
    ],
)
def test_so_is_what_a_call_cannot_mean(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        RateLimiter(URL, "crm", "10/s", prefix="shop").acquire(**arguments)
    with pytest.raises(ValueError, match=re.escape(error)):
        asyncio.run(AsyncRateLimiter(URL, "crm", "10/s", prefix="shop").acquire(**arguments))


def test_each_limiter_decorates_functions_of_its_kind() -> None:
    async def coroutine() -> None: ...
    def function() -> None: ...

    with pytest.raises(TypeError, match="coroutine is a coroutine function: use AsyncRateLimiter"):
        RateLimiter(URL, "crm", "10/s", prefix="shop")(coroutine)
    with pytest.raises(TypeError, match="is no coroutine function: use RateLimiter"):
        AsyncRateLimiter(URL, "crm", "10/s", prefix="shop")(function)


def test_a_refusal_outlives_a_pickle() -> None:
    refusal = pickle.loads(pickle.dumps(AcquireTimeout("crm", 1.5, 2.25)))

    assert isinstance(refusal, AcquireTimeout)
    assert isinstance(refusal, TimeoutError)
    assert (refusal.retry_after, refusal.errno) == (2.25, None)
    assert str(refusal) == "no slot of crm within 1.5 s; the next may come in 2.25 s"
    assert str(AcquireTimeout("crm", 1)) == "no slot of crm within 1 s"


def test_what_it_is_can_be_read_without_its_password() -> None:
    limiter = RateLimiter(
        "redis://:secret@localhost:6379/3", "crm", ["10/s", {"rate": "1000/h", "burst": 50}], prefix="shop"
    )

    assert repr(limiter) == "<RateLimiter crm at 10/s and 1000/h, burst 50, kept by redis://localhost:6379/3>"
    assert limiter.name == "crm"
