"""Tasks whose API asks for a pause, each in another way. To be included beside `testbed.app`.

The answers come over HTTP from a server of the test, to the client of the standard library: its exception holds an open
socket, so it cannot be pickled.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from celery import Task
from celery.exceptions import Reject

from celery_global_rate.feedback.rate_limited import RateLimited
from testbed.app import app, record

from .api_clients import CLIENTS


def answered(name: str, **options: Any) -> Any:
    """Its own limit is out of reach: with it, its tasks do not wait behind all others of a named bucket."""
    return app.task(bind=True, name=name, rate_limit="1000/s", shared=False, **options)


def call(task: Task, url: str) -> None:
    """One request, which is recorded just before its answer is raised."""
    record("start", task.name, task.request.id)
    try:
        with urlopen(url, timeout=5) as response:
            response.read()
    except HTTPError:
        record("answered", task.name, task.request.id)
        raise


@answered("answers.fails")
def fails(self: Task, url: str, tenant: str | None = None) -> None:
    call(self, url)


@answered("answers.retries", max_retries=1)
def retries(self: Task, url: str) -> None:
    try:
        call(self, url)
    except HTTPError as exc:
        raise self.retry(exc=exc, countdown=60)  # noqa: B904  (as people write it)


@answered("answers.retries_silently", max_retries=1)
def retries_silently(self: Task, url: str) -> None:
    """The retry does not say why."""
    try:
        call(self, url)
    except HTTPError:
        self.retry(countdown=60)


@answered("answers.autoretries", autoretry_for=(HTTPError,), max_retries=1, default_retry_delay=60)
def autoretries(self: Task, url: str) -> None:
    call(self, url)


@answered("answers.gives_up", autoretry_for=(HTTPError,), max_retries=0)
def gives_up(self: Task, url: str) -> None:
    call(self, url)


@answered("answers.works", autoretry_for=(HTTPError,), max_retries=50, default_retry_delay=1)
def works(self: Task, url: str) -> None:
    """Says who asks, and records how many retries it took in the end."""
    request = Request(url, headers={"X-Process": f"{os.getpid()}"})
    with urlopen(request, timeout=5) as response:
        response.read()
    record(f"after-{self.request.retries}", self.name, self.request.id)


class CrmError(Exception):
    """What an application makes of an error of its client; it cannot be read again after pickling."""

    def __init__(self, customer: int, reason: str) -> None:
        super().__init__(reason)
        self.customer = customer


@answered("answers.wraps")
def wraps(self: Task, url: str) -> None:
    try:
        call(self, url)
    except HTTPError as exc:
        raise CrmError(5, "busy") from exc


@answered("answers.wraps_silently")
def wraps_silently(self: Task, url: str) -> None:
    try:
        call(self, url)
    except HTTPError:
        raise CrmError(5, "busy") from None


class UnpicklableError(Exception):
    def __init__(self, response: Any) -> None:
        super().__init__()
        self.status_code, self.headers, self.handler = response.status, response.headers, lambda: None


@answered("answers.cannot_be_pickled")
def cannot_be_pickled(self: Task, url: str) -> None:
    try:
        call(self, url)
    except HTTPError as exc:
        error = UnpicklableError(exc)
    raise error


@answered("answers.says")
def says(self: Task, url: str) -> None:
    """It has no exception for it."""
    try:
        call(self, url)
    except HTTPError as exc:
        seconds = float(exc.headers["Retry-After"])
    raise RateLimited(retry_after=seconds)


def by_client(task: Task, client: str, url: str) -> None:
    """One request of a client library, of its own kind of error."""
    try:
        CLIENTS[client](url)
    except Exception:
        record("answered", task.name, task.request.id)
        raise


@answered("answers.client_fails")
def client_fails(self: Task, client: str, url: str) -> None:
    by_client(self, client, url)


@answered("answers.client_retries", max_retries=1)
def client_retries(self: Task, client: str, url: str) -> None:
    try:
        by_client(self, client, url)
    except Exception as exc:
        raise self.retry(exc=exc, countdown=60) from exc


@answered("answers.client_autoretries", autoretry_for=(Exception,), max_retries=1, default_retry_delay=60)
def client_autoretries(self: Task, client: str, url: str) -> None:
    by_client(self, client, url)


@answered("answers.client_wraps")
def client_wraps(self: Task, client: str, url: str) -> None:
    try:
        by_client(self, client, url)
    except Exception as exc:
        raise CrmError(5, "busy") from exc


@answered("answers.swallows")
def swallows(self: Task, url: str) -> None:
    """Nobody learns of it."""
    with contextlib.suppress(HTTPError):
        call(self, url)


@answered("answers.rejects")
def rejects(self: Task, url: str) -> None:
    try:
        call(self, url)
    except HTTPError as exc:
        raise Reject(exc, requeue=False) from exc
