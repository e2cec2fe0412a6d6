"""Limiters on a real server, each test with keys of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis

from celery_global_rate import AsyncRateLimiter, RateLimiter
from celery_global_rate.client import hub
from celery_global_rate.limits import override
from celery_global_rate.limits.limit import AS_OVERRIDE, Limit
from celery_global_rate.storage.blocking_store import BlockingStore
from celery_global_rate.storage.location import Location
from celery_global_rate.storage.scripts import bucket_key, members_key, waiting_key

from ..conftest import Server


class Bench:
    """Makes limiters with the same prefix, looks at what Redis has of them, and does what operators do.

    Attributes:
        url: of the Redis.
        prefix: of all keys.
    """

    def __init__(self, server: Any, database: int) -> None:
        self.url, self.prefix = f"{server.url}/{database}", uuid.uuid4().hex
        self.client: redis.Redis = redis.Redis.from_url(self.url, decode_responses=True)

    def limiter(self, rate: Any = "10/s", name: str = "crm", **options: Any) -> RateLimiter:
        return RateLimiter(self.url, name, rate, prefix=self.prefix, **options)

    def aio(self, rate: Any = "10/s", name: str = "crm", **options: Any) -> AsyncRateLimiter:
        return AsyncRateLimiter(self.url, name, rate, prefix=self.prefix, **options)

    def given(self, name: str = "crm", window: str = "smooth") -> int:
        """How many slots were spent."""
        return int(self.client.hget(bucket_key(self.prefix, name, window), "given") or 0)

    def waiting(self, name: str = "crm", window: str = "smooth") -> Sequence[str]:
        """The processes that Redis counts as waiting."""
        return list(map(str, self.client.zrange(waiting_key(self.prefix, name, window), 0, -1)))

    def members(self) -> int:
        """The processes that share the limits."""
        return int(self.client.zcard(members_key(self.prefix)))

    def set(self, rate: str, name: str = "crm") -> None:
        """An operator sets a limit."""
        limit = Limit.parse(rate, spelling=AS_OVERRIDE)
        self._change(name, override.set_limits((limit,) if limit else (), rate or "none", ()))

    def pause(self, name: str = "crm", until_us: int | None = None) -> None:
        self._change(name, override.pause(until_us))

    def resume(self, name: str = "crm") -> None:
        self._change(name, override.RESUME)

    def _change(self, name: str, change: Any) -> None:
        with BlockingStore(Location(self.url, {}, self.prefix)) as store:
            store.change(name, change, by="ann", source="test")


@pytest.fixture
def bench(redis_server: Server) -> Bench:
    return Bench(redis_server, 9)


@pytest.fixture(autouse=True, scope="session")
def _hub_ends_before_the_server(redis_server: Server) -> Iterator[None]:
    """The hub of this process would miss a server that has ended, and log it."""
    yield
    hub._stop()
    hub._forget()
