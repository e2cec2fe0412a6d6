"""The tasks that the workers in containers run: each records its start in Redis, which stamps it with its own clock.

It is recorded with the instant at which its worker released it to the pool. They have no rate: a test declares one by
`task_annotations`, as an operator would.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import redis
from celery import bootsteps, shared_task
from celery.signals import worker_init, worker_process_init, worker_ready

#: The stream of all starts.
STARTS = "starts"

_connections: dict[int, redis.Redis] = {}


class Stamp(bootsteps.Step):
    """Notes on each message when the worker releases it to its pool: monotonic seconds, which containers share.

    The pool sends the message's fields to the task, which records the instant with its start.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def create(self, consumer: Any) -> None:
        release = consumer.on_task_request

        def on_task_request(request: Any) -> None:
            request.request_dict["released"] = time.monotonic()
            release(request)

        consumer.on_task_request = on_task_request


@worker_init.connect
def stamp_releases(sender: Any, **kwargs: Any) -> None:
    """Put the step into the worker: the application itself is pytest-celery's."""
    sender.app.steps["consumer"].add(Stamp)


@worker_process_init.connect
@worker_ready.connect
def connect(**kwargs: Any) -> None:
    """Connect before the first task comes: its record must not be late."""
    connection = _connections[os.getpid()] = redis.Redis.from_url(os.environ["STARTS_URL"], socket_timeout=5)
    with contextlib.suppress(redis.ConnectionError):
        connection.ping()


def record(task: Any) -> None:
    """Record a start. The id of the entry is its instant on the Redis clock, in milliseconds."""
    process = os.getpid()
    request = task.request
    entry: dict[Any, Any] = {  # not [str, str]: redis takes more kinds of keys, and dict is invariant
        "task": task.name,
        "id": request.id,
        "worker": request.hostname,
        "released": request.released,
    }
    while True:  # a container that is cut off from the network keeps its record until it is joined again
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            _connections[process].xadd(STARTS, entry)
            return
        time.sleep(0.05)


@shared_task(name="limited", bind=True)
def limited(self: Any) -> None:
    record(self)


@shared_task(name="greedy", bind=True)
def greedy(self: Any) -> None:
    """Takes memory until the kernel kills a process in the container."""
    record(self)
    taken = []
    while True:
        taken.append(bytearray(b"x" * 10_000_000))
