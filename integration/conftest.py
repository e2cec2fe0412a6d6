"""Brokers and workers in containers, by pytest-celery: what this suite needs to be other than its defaults."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest
import pytest_docker_tools.wrappers.container
import redis
from celery import Celery
from pytest_celery import CeleryTestBackend, CeleryTestBroker, RedisContainer
from pytest_docker_tools import build, fxtr, network, volume

from celery_global_rate.limits.limit import Limit
from testbed.server import free_port, root

from . import leftovers
from .fleet import Fleet, WorkerContainer
from .starts import Starts
from .trial import Trial

#: Notes a line that the end of the run prints.
Figures = Callable[[str], None]

#: Every test runs on both brokers, but those that are about one of them, or would show nothing new on the other.
ON_REDIS = pytest.mark.parametrize("celery_broker", ["celery_redis_broker"], indirect=True)
ON_RABBITMQ = pytest.mark.parametrize("celery_broker", ["celery_rabbitmq_broker"], indirect=True)

# If a machine is itself a container, the one of pytest-docker-tools would look for Redis at its inner port.
pytest_docker_tools.wrappers.container.tests_inside_container = lambda: False


def pytest_sessionstart(session: pytest.Session) -> None:
    """SIGTERM ends a run as Ctrl-C does, with its clean-up; a run that was killed is cleaned up by the next one."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        daemon = docker.from_env()
        daemon.ping()
    except docker.errors.DockerException as exc:
        pytest.exit(f"no Docker daemon answers ({exc}): start one, or set DOCKER_HOST", returncode=2)
    for run in leftovers.dead_runs(daemon):
        leftovers.remove(daemon, run)


def pytest_sessionfinish(session: pytest.Session) -> None:
    leftovers.remove(docker.from_env(), leftovers.RUN)


# the images and the network

celery_base_worker_image = build(
    path=str(root()), dockerfile="integration/Dockerfile", target="worker", tag="celery-global-rate/worker:test"
)
default_pytest_celery_network = network(labels=leftovers.LABELS)
default_worker_volume = volume(initial_content=fxtr("default_worker_initial_content"), labels=leftovers.LABELS)


# broker, and the Redis that records starts: with RabbitMQ as the broker it keeps the limits, too


class DurableRedis(RedisContainer):
    """A Redis that keeps its data when it is restarted."""

    @classmethod
    def command(cls, *args: str, **kwargs: Any) -> list[str]:
        return super().command("--appendonly", "yes", *args)


@pytest.fixture
def default_redis_broker_cls() -> type[RedisContainer]:
    return DurableRedis


def port_of_its_own(inner: str) -> dict[str, tuple[str, int]]:
    """Docker gives another port after a restart where none is named."""
    return {inner: ("127.0.0.1", free_port())}


@pytest.fixture
def default_redis_broker_ports() -> dict[str, tuple[str, int]]:
    return port_of_its_own("6379/tcp")


@pytest.fixture
def default_redis_backend_ports() -> dict[str, tuple[str, int]]:
    return port_of_its_own("6379/tcp")


@pytest.fixture
def default_rabbitmq_broker_ports() -> dict[str, tuple[str, int]]:
    return port_of_its_own("5672/tcp")


# the application: pytest-celery's own, with our tasks and a rate by annotation


@pytest.fixture
def default_worker_container_cls() -> type[WorkerContainer]:
    return WorkerContainer


@pytest.fixture(scope="session")
def default_worker_container_session_cls() -> type[WorkerContainer]:
    return WorkerContainer


@pytest.fixture
def rate() -> str:
    """The rate of the task `limited`; a test that needs another parametrizes it."""
    return "50/s"


@pytest.fixture
def default_worker_app(celery_setup_app: Celery, rate: str) -> Celery:
    celery_setup_app.conf.update(
        task_annotations={"limited": {"rate_limit": rate}},
        task_ignore_result=True,
        task_default_queue="celery",
        broker_connection_retry_on_startup=True,
    )
    return celery_setup_app


# what tests use


@pytest.fixture
def fleet(
    docker_client: docker.DockerClient,
    celery_base_worker_image: Any,
    default_pytest_celery_network: Any,
    default_worker_volume: Any,
    default_worker_env: dict[str, str],
    default_worker_app: Celery,
    celery_broker: CeleryTestBroker,
    celery_backend: CeleryTestBackend,
) -> Iterator[Fleet]:
    """No workers yet; all that a test starts end with it. Every test that takes it runs on both brokers."""
    fleet = Fleet(
        docker_client,
        celery_base_worker_image.id,
        default_pytest_celery_network,
        default_worker_volume.name,
        {**default_worker_env, "STARTS_URL": celery_backend.config()["url"]},
        leftovers.LABELS,
        default_worker_app,
    )
    yield fleet
    fleet.end()


@pytest.fixture
def starts(celery_backend: CeleryTestBackend) -> Iterator[Starts]:
    """What tasks record."""
    with redis.Redis.from_url(celery_backend.config()["host_url"], decode_responses=True) as client:
        yield Starts(client)


@pytest.fixture
def trial(fleet: Fleet, starts: Starts, rate: str) -> Trial:
    """The fleet, and the limit that it has to keep."""
    limit = Limit.parse(rate)
    assert limit is not None
    return Trial(fleet, starts, limit)
