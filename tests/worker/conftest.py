"""What the tests of the worker share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from celery_global_rate.worker import step

from ..conftest import Server
from .fakes import Worker


@pytest.fixture(autouse=True)
def nothing_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the garbage collector alone: a worker prepares it for its processes, and this one has none."""
    monkeypatch.setattr(step, "leave_to_fork", lambda: None)


@pytest.fixture
def url(redis_server: Server, redis_client: redis.Redis) -> str:
    """Of an empty database."""
    return f"{redis_server.url}/9"


@pytest.fixture
def worker(url: str) -> Iterator[Worker]:
    """One whose task may run once an hour. It is connected, or its first call would be refused and wait for 0.1 s."""
    with Worker(url) as worker:
        worker.engine.pump()
        worker.loop.run_until(lambda: worker.engine.info()["run_id"])
        yield worker
