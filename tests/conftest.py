"""What the tests share: one real server."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Union

import celery
import pytest
import redis
from hypothesis import HealthCheck, settings
from kombu.transport.redis import Channel

from testbed.server import ExternalRedis, RabbitMQ, Redis, any_redis, redis_binary

from .storage.replay import Bucket

# One database serves all examples of a test, which empties it before each.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.register_profile("quick", settings.get_profile("tests"), max_examples=20)
settings.load_profile("tests")

Server = Union[Redis, ExternalRedis]
KNOWS_QUORUM_QUEUES = pytest.mark.skipif(
    celery.__version__ < "5.5", reason="Celery takes tasks from quorum queues from 5.5 on"
)
KNOWS_PROVIDERS = pytest.mark.skipif(
    not hasattr(Channel, "_process_credential_provider"), reason="kombu takes no credential provider yet"
)
#: An application whose tasks go to a quorum queue.
QUORUM = {"task_default_queue": "quorum", "task_default_queue_type": "quorum"}
#: Notes a line that the end of the run prints.
Figures = Callable[[str], None]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """A real server: without one the test is skipped here, and fails in CI."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(any_redis())
            server.client().ping()
        except (RuntimeError, redis.ConnectionError) as reason:
            give_up = pytest.fail if os.environ.get("CI") else pytest.skip
            give_up(f"no Redis: {reason}")
        yield server


@pytest.fixture
def redis_client(redis_server: Server) -> Iterator[redis.Redis]:
    """An empty database, the ninth."""
    with redis.Redis.from_url(f"{redis_server.url}/9", decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def bucket(redis_client: redis.Redis) -> Bucket:
    """A full bucket."""
    return Bucket(redis_client)


@pytest.fixture
def empty_redis(redis_server: Server) -> Server:
    """A server with nothing in it: database 0 for brokers, 1 for limits."""
    for database in (0, 1):
        redis_server.client(database).flushdb()
    return redis_server


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A server for one test: nothing else is in its statistics, and it may be stopped."""
    try:
        server = Redis().start()
    except RuntimeError as reason:
        pytest.skip(f"no second Redis: {reason}")
    yield server
    server.close()


@contextlib.contextmanager
def locked_redis(password: str) -> Iterator[Redis]:
    """A server that wants a password."""
    if redis_binary() is None:
        pytest.skip("no Redis to run")
    with contextlib.closing(Redis(options=["--requirepass", password], password=password)) as server:
        yield server.start()


@contextlib.contextmanager
def rabbitmq_node(**settings: int) -> Iterator[RabbitMQ]:
    """A node of our own: if RabbitMQ is not installed, the test is skipped here, and fails in CI."""
    server = RabbitMQ(**settings)
    try:
        server.start()
    except RuntimeError as reason:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(str(reason))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    """The one that all tests share."""
    with rabbitmq_node() as server:
        yield server


@pytest.fixture
def rabbitmq(rabbitmq_server: RabbitMQ) -> str:
    """The URL of a RabbitMQ without messages."""
    rabbitmq_server.purge()
    return rabbitmq_server.url
