"""The tasks that the workers in containers run: each records its start in Redis, which stamps it with its own clock.

They have no rate: a test declares one by `task_annotations`, as an operator would.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import redis
from celery import shared_task
from celery.signals import worker_process_init, worker_ready

#: The stream of all starts.
STARTS = "starts"

_connections: dict[int, redis.Redis] = {}


@worker_process_init.connect
@worker_ready.connect
def connect(**kwargs: Any) -> None:
    """Connect before the first task comes, so that its record is not late."""
    connection = _connections[os.getpid()] = redis.Redis.from_url(os.environ["STARTS_URL"], socket_timeout=5)
    with contextlib.suppress(redis.ConnectionError):
        connection.ping()


def record(task: Any) -> None:
    """Record a start. The id of the entry is its instant on the Redis clock, in milliseconds."""
    process = os.getpid()
    entry = {"task": task.name, "id": task.request.id, "worker": task.request.hostname}
    while True:  # a container that is cut off from the network keeps its record until it is joined again
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            _connections[process].xadd(STARTS, entry)
            return
        time.sleep(0.05)


@shared_task(name="limited", bind=True)
def limited(self: Any) -> None:
    record(self)


@shared_task(name="free", bind=True)
def free(self: Any) -> None:
    record(self)


@shared_task(name="greedy", bind=True)
def greedy(self: Any) -> None:
    """Takes memory until the kernel ends somebody in the container."""
    record(self)
    taken = []
    while True:
        taken.append(bytearray(b"x" * 10_000_000))
