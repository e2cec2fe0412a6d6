"""Limiters of an application: the buckets, keys, settings and Redis of its workers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from celery.schedules import crontab

from celery_global_rate import AsyncRateLimiter, RateLimiter
from celery_global_rate.limits.key_values import as_value
from celery_global_rate.storage.scripts import bucket_key

from .conftest import Bench

BUCKETS: dict[str, Any] = {
    "crm-api": {"rate": ["100/s", {"rate": "1000/d", "window": "fixed"}], "tasks": ["crm.*"], "key": "tenant_id"},
    "mail": {"rate": {"rate": "1/m", "burst": 3}, "queues": ["mail"]},
    "tokens": {"rate": {"window": crontab(minute=0), "amount": 2, "maximum": 2}, "queues": ["mail"]},
}


def application(bench: Bench, **conf: Any) -> Celery:
    app = Celery("shop", set_as_current=False)
    app.conf.update(global_rate_url=bench.url, global_rate_key_prefix=bench.prefix, global_rate_buckets=BUCKETS)
    app.conf.update(conf)

    @app.task(name="send", rate_limit="6/m", rate_burst=2, shared=False)
    def send() -> None: ...
    @app.task(name="free", shared=False)
    def free() -> None: ...

    return app


def test_a_named_bucket_has_all_its_limits_and_its_key(bench: Bench) -> None:
    limiter = RateLimiter.from_app(application(bench), "crm-api")

    assert limiter.try_acquire("a/b")
    (fixed,) = (key for key in bench.client.scan_iter(f"*{bench.prefix}*fixed*"))
    smooth = bucket_key(bench.prefix, "crm-api", f"smooth:{as_value('a/b')}")
    assert bench.client.hget(smooth, "given") == bench.client.hget(fixed, "given") == "1"
    assert fixed == bucket_key(bench.prefix, "crm-api", "fixed-d:a%2Fb")


def test_a_task_has_its_own_limit_and_burst(bench: Bench) -> None:
    limiter = RateLimiter.from_app(application(bench), "send")

    assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]
    assert bench.client.hget(bucket_key(bench.prefix, "send"), "given") == "2"


def test_refills_by_a_crontab(bench: Bench) -> None:
    limiter = RateLimiter.from_app(application(bench), "tokens")

    assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]


def test_the_settings_of_the_application_count(bench: Bench) -> None:
    app = Celery("shop", set_as_current=False)
    app.conf.update(global_rate_url=bench.url, global_rate_buckets=BUCKETS, global_rate_on_outage="hold")
    limiter = AsyncRateLimiter.from_app(app, "mail")

    assert isinstance(limiter, AsyncRateLimiter)
    assert (limiter._location.key_prefix, limiter._on_outage) == ("global-rate:v1:shop", "hold")
    other = RateLimiter.from_app(app, "mail", url="redis://elsewhere:1/2")
    assert other._location.address == "redis://elsewhere:1/2"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("crm_api", "name = 'crm_api': there is no limit of that name: did you mean 'crm-api'?"),
        ("other", "name = 'other': there is no limit of that name: there are 'crm-api', 'mail', 'send', 'tokens'"),
        ("free", "name = 'free': that task has no limit of its own: there are 'crm-api', 'mail', 'send', 'tokens'"),
        (None, "name = None: there is no limit of that name: there are 'crm-api'"),
    ],
)
def test_another_name_is_refused_with_those_that_exist(bench: Bench, name: Any, error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        RateLimiter.from_app(application(bench), name)


def test_an_application_without_any_limit_says_so(bench: Bench) -> None:
    app = Celery("bare", set_as_current=False)
    app.conf.global_rate_url = bench.url
    with pytest.raises(ValueError, match="nor any other: declare one in global_rate_buckets, or a rate_limit"):
        RateLimiter.from_app(app, "crm-api")


def test_of_many_names_ten_are_listed(bench: Bench) -> None:
    buckets = {f"bucket-{number}": {"rate": "1/s", "tasks": ["x"]} for number in range(12)}
    with pytest.raises(ValueError, match="and 3 more"):
        RateLimiter.from_app(application(bench, global_rate_buckets=buckets), "zzz")


def test_an_invalid_setting_is_refused_as_by_a_worker(bench: Bench) -> None:
    with pytest.raises(ImproperlyConfigured, match="global_rate_on_outage = 'wait'"):
        RateLimiter.from_app(application(bench, global_rate_on_outage="wait"), "mail")


def test_a_key_where_there_is_none_is_refused(bench: Bench) -> None:
    limiter = RateLimiter.from_app(application(bench), "mail")
    with pytest.raises(ValueError, match="key = 'ann': mail has no key, so that all share one bucket: leave it out"):
        limiter.try_acquire("ann")
