"""What an API has answered to a task, from the exception in flight to Redis, by the tracer of Celery's own workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery, signals
from celery.app.trace import build_tracer

from celery_global_rate.feedback.rate_limited import RateLimited
from celery_global_rate.limits.bucket import OWN, Bucket
from celery_global_rate.limits.limit import Limit
from celery_global_rate.named_buckets import NamedBucket
from celery_global_rate.settings import Settings
from celery_global_rate.storage.scripts import bucket_key, news_channel
from celery_global_rate.worker.reports import NOTE, TIMEOUT_S, Reports
from testbed.server import free_port

PREFIX = "global-rate:v1:test"
LIMIT = Limit(10_000)
NAMED = {
    bucket.name: bucket
    for bucket in (
        NamedBucket("tenants", (LIMIT,), ("*",), (), key="tenant", backoff_s=60),
        NamedBucket("api", (LIMIT, Limit.in_windows("9/h")), ("*",), (), backoff_s=5),
        NamedBucket("all", (LIMIT,), ("*",), ()),
        NamedBucket("never", (LIMIT,), ("*",), (), backoff_s=0),
    )
}


def buckets(*places: tuple[str, str]) -> list[Bucket]:
    return [Bucket(name, window, LIMIT) for name, window in places]


API = buckets(("api", "smooth"), ("api", "fixed-h"))


def reports(url: str, for_all: float = 0.0) -> Reports:
    return Reports(Settings(url, {}, PREFIX, 100, backoff_s=for_all), NAMED)


def noted(it: Reports, passed: list[Bucket]) -> Any:
    request = SimpleNamespace(delivery_info={})
    it.mark(request, passed)
    return request.delivery_info.get(NOTE)


def test_a_request_backs_off_its_buckets_that_have_it() -> None:
    passed = buckets(("t", OWN), ("api", "smooth"), ("api", "smooth2"), ("all", "smooth"), ("never", "smooth"))

    assert noted(reports(""), passed) == [["api", None, ["smooth", "smooth2"]]]
    assert noted(reports("", 30), passed) == [
        ["t", None, [OWN]],
        ["api", None, ["smooth", "smooth2"]],
        ["all", None, ["smooth"]],
    ]


def test_of_these_only_the_ones_with_a_key_if_it_has_a_value() -> None:
    passed = buckets(("t", OWN), ("tenants", "smooth:a%2Fb"), ("api", "smooth"))

    assert noted(reports("", 30), passed) == [["tenants", "a%2Fb", ["smooth:a%2Fb"]]]
    assert noted(reports(""), buckets(("tenants", "smooth"), ("api", "smooth"))) == [
        ["tenants", None, ["smooth"]],
        ["api", None, ["smooth"]],
    ]


def test_nobody_listens_where_nothing_backs_off(url: str) -> None:
    def receivers(it: Reports) -> int:
        listed = [*(signals.task_failure.receivers or ()), *(signals.task_retry.receivers or ())]
        return sum(getattr(receiver, "__self__", None) is it for _, receiver in listed)

    unused = Reports(Settings(url, {}, PREFIX, 100), {"never": NAMED["never"], "all": NAMED["all"]})
    unused.begin()
    assert receivers(unused) == 0
    assert noted(unused, buckets(("all", "smooth"))) is None
    unused.end()
    used = reports(url)
    used.begin()
    assert receivers(used) == 2
    used.end()
    assert receivers(used) == 0


class Traced:
    """Runs a function as a task, as a process of the pool does.

    Attributes:
        heard: the news of the limiter's Redis.
    """

    def __init__(self, app: Celery, listener: Any) -> None:
        self._app, self._listener = app, listener

    def run(self, function: Callable[..., Any], passed: list[Bucket], it: Reports, **options: Any) -> Any:
        """What the tracer returns of it, after a request that has passed these buckets."""
        task = self._app.task(function, bind=True, name="t", shared=False, **options)
        self._app.tasks.unregister("t")
        request = SimpleNamespace(delivery_info={})
        it.mark(request, passed)
        trace = build_tracer("t", task, app=self._app, eager=False, propagate=False)
        info = {"delivery_info": request.delivery_info, "is_eager": False, "retries": 0, "id": "1"}
        return trace("1", (), {}, info).retval

    def heard(self) -> list[str]:
        found = []
        while message := self._listener.get_message(timeout=0.2):
            found.append(message["data"])
        return found


@pytest.fixture
def traced(url: str, redis_client: redis.Redis) -> Iterator[Traced]:
    app = Celery("proj", broker="memory://", set_as_current=False)
    app.conf.task_default_queue = "reports"  # the queues of that broker are those of the whole process
    with redis_client.pubsub() as listener:
        listener.subscribe(news_channel(PREFIX, 9))
        assert listener.get_message(timeout=5)["type"] == "subscribe"
        yield Traced(app, listener)
    app.close()


def off_us(client: redis.Redis, name: str, window: str) -> int:
    """For how long a limit backed off when that was written."""
    length: Any = client.hget(bucket_key(PREFIX, name, window), "off_length")
    return int(length or 0)


def ask(task: Any) -> None:
    raise RateLimited(retry_after=2)


def ask_again(task: Any) -> None:
    try:
        ask(task)
    except RateLimited as exc:
        raise task.retry(exc=exc, countdown=1)  # noqa: B904  (as people write it)


@pytest.mark.parametrize("function", [ask, ask_again])
def test_all_limits_of_a_bucket_back_off_and_all_workers_are_told(
    url: str, redis_client: redis.Redis, traced: Traced, function: Callable[..., Any]
) -> None:
    it = reports(url)
    it.begin()
    traced.run(function, API, it)
    it.end()

    assert [off_us(redis_client, *bucket.place) for bucket in API] == [2_000_000] * 2
    (news,) = traced.heard()
    assert news.startswith("off\n")
    assert news.endswith(' 2000000\n["api", null, "HTTP 429, Retry-After 2 s"]')


def test_no_longer_than_the_bucket_says(url: str, redis_client: redis.Redis, traced: Traced) -> None:
    def ask_for_a_day(task: Any) -> None:
        raise RateLimited(retry_after=86_400)

    it = reports(url, 30)
    it.begin()
    traced.run(ask_for_a_day, [*API, *buckets(("all", "smooth"), ("tenants", "smooth"))], it)
    it.end()

    assert off_us(redis_client, "api", "smooth") == 5_000_000
    assert off_us(redis_client, "all", "smooth") == 30_000_000
    assert off_us(redis_client, "tenants", "smooth") == 60_000_000


def test_other_errors_and_other_tasks_are_none(
    url: str, redis_client: redis.Redis, traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(task: Any) -> None:
        raise RuntimeError("on purpose")

    def succeed(task: Any) -> None:
        pass

    it = reports(url)
    it.begin()
    traced.run(fail, API, it)
    traced.run(ask, [], it)
    traced.run(ask, buckets(("all", "smooth")), it)
    traced.run(succeed, API, it)
    it.end()

    assert redis_client.keys("*") == []
    assert not [record for record in caplog.records if record.name.startswith("celery_global_rate")]


@pytest.mark.parametrize(
    ("headers", "said"),
    [({}, "no Retry-After"), ({"Retry-After": "soon"}, "Retry-After 'soon'")],
)
def test_an_answer_that_does_not_say_for_how_long_is_one_line(
    url: str,
    redis_client: redis.Redis,
    traced: Traced,
    caplog: pytest.LogCaptureFixture,
    headers: dict[str, str],
    said: str,
) -> None:
    class RefusedError(Exception):
        status_code = 429

    def refused(task: Any) -> None:
        error = RefusedError()
        error.headers = headers  # type: ignore[attr-defined]
        raise error

    it = reports(url)
    it.begin()
    traced.run(refused, API, it)
    it.end()

    assert redis_client.keys("*") == []
    (line,) = [record for record in caplog.records if record.name.startswith("celery_global_rate")]
    assert line.getMessage() == f"global-rate: task t: HTTP 429 with {said}, which is no pause: api does not back off"
    assert line.levelno == logging.WARNING


def test_a_redis_that_is_away_costs_a_task_no_more_than_a_line(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that is refused takes no time. The task fails with its own error."""
    url = f"redis://:s3cret@127.0.0.1:{free_port()}/9"
    it = reports(url)
    it.begin()
    begin = time.monotonic()
    failure = traced.run(ask, API, it)
    it.end()

    assert time.monotonic() - begin < 2 * TIMEOUT_S
    assert isinstance(failure.exception, RateLimited)
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("celery_global_rate")]
    assert line.startswith("global-rate: HTTP 429, Retry-After 2 s, from an API is not known in the Redis at redis://")
    assert "s3cret" not in line
