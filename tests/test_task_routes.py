"""`rate_limit` inside `task_routes`: what it means, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from kombu import Queue

from celery_global_rate.declared_limits import declared_limits
from celery_global_rate.limits.limit import spelled
from celery_global_rate.named_buckets import read_named_buckets
from celery_global_rate.task_routes import has_functions

FEEDS = {"queue": "feeds", "rate_limit": "10/m"}


def an_app(routes: Any, **conf: Any) -> Celery:
    app = Celery("proj", set_as_current=False)
    app.conf.update(task_routes=routes, **conf)
    return app


def noop() -> None:
    """A task."""


def route(name: str, *args: Any, **kwargs: Any) -> None:
    """A router that has nothing to say."""


@pytest.mark.parametrize(
    "routes",
    [
        {"feed.tasks.*": FEEDS},
        [{"other": "queue"}, {"feed.tasks.*": FEEDS, "feed.import": dict(FEEDS)}],
        ([("feed.tasks.*", FEEDS), (re.compile("video|image"), {"queue": "media"})],),
        [route, {"feed.tasks.*": {**FEEDS, "queue": Queue("feeds")}}],
    ],
    ids=["a dictionary", "a list of them", "a tuple of pairs", "beside a function"],
)
def test_a_route_with_a_queue_and_a_rate_is_a_bucket_for_the_queue(routes: Any) -> None:
    (bucket,) = read_named_buckets(an_app(routes).conf).values()

    assert (bucket.name, bucket.queues, bucket.tasks) == ("feeds", ("feeds",), ())
    assert spelled(bucket.limits) == "10/m"
    assert bucket.is_route


@pytest.mark.parametrize(
    ("routes", "rate"),
    [
        ({"feed.*": {"rate_limit": "5/s"}}, "5/s"),
        ({"feed.fetch": {"rate_limit": "5/s"}, "feed.*": {"rate_limit": "9/s"}}, "5/s"),
        ([(re.compile("feed"), {"rate_limit": "5/s", "priority": 3})], "none"),
        ([[(re.compile("feed"), {"rate_limit": "5/s", "priority": 3})]], "5/s"),
        ({"feed.*": FEEDS, "other": {"rate_limit": "5/s"}}, "none"),
        ({"feed.*": "feeds"}, "none"),
        ("proj.routers.route", "none"),
        (None, "none"),
    ],
)
def test_a_route_without_a_queue_is_the_limit_of_each_of_its_tasks(routes: Any, rate: str) -> None:
    app = an_app(routes)
    fetch = app.task(name="feed.fetch", shared=False)(noop)
    own = app.task(name="feed.own", rate_limit="7/s", shared=False)(noop)

    assert spelled(declared_limits(app, fetch)) == rate
    assert spelled(declared_limits(app, own)) == "7/s"


@pytest.mark.parametrize(
    ("routes", "conf", "error"),
    [
        (
            {"a": FEEDS, "b": {**FEEDS, "rate_limit": "9/m"}},
            {},
            "task_routes, b: rate_limit = '9/m': another entry gives queue feeds '10/m': use one rate for a queue",
        ),
        (
            {"a": {**FEEDS, "rate_limit": "ten"}},
            {},
            "task_routes: rate_limit of queue 'feeds': rate 'ten' cannot be read: use N/s",
        ),
        (
            {"a": {**FEEDS, "queue": "all feeds"}},
            {},
            "task_routes: rate_limit of queue 'all feeds': its bucket cannot have that name: use a bucket of "
            "global_rate_buckets for it",
        ),
        (
            {"a": FEEDS},
            {"global_rate_buckets": {"feeds": {"rate": "1/s", "tasks": ["a"]}}},
            "global_rate_buckets, feeds: queue feeds has a rate_limit in task_routes, whose bucket has the same name: "
            "keep one of them",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(routes: Any, conf: dict[str, Any], error: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=re.escape(error)):
        read_named_buckets(an_app(routes, **conf).conf)


def test_functions_among_the_routes_are_noticed() -> None:
    assert has_functions(an_app([route, {"a": FEEDS}]).conf)
    assert has_functions(an_app("proj.routers.route").conf)
    assert not has_functions(an_app({"a": FEEDS}).conf)
    assert not has_functions(an_app(None).conf)
