"""A plugin of pytest, and a module that workers include: every worker limits every task, far above what it needs.

It counts what workers in this process receive and what goes to the pool in a slot of ours, and reports both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from celery.signals import task_received, worker_init

from .watch import write

#: A slot every ten microseconds.
RATE = "100000/s"


class Count:
    """Tasks with a limit since the process began."""

    received = 0
    released = 0


@worker_init.connect(weak=False)
def limit_every_task(sender: Any, **kwargs: Any) -> None:
    """All but Celery's own, which have no limit unless they are named. Some applications have no Redis."""
    sender.app.conf.global_rate_url = os.environ["TEST_BACKEND"]
    for task in sender.app.tasks.values():
        if not task.name.startswith("celery."):
            task.rate_limit = RATE


@task_received.connect(weak=False)
def count_received(request: Any, **kwargs: Any) -> None:
    if not request.name.startswith("celery."):
        Count.received += 1


# The extension reads settings and rates when it hears the same signal, and it listens as soon as it is imported.
import celery_global_rate.auto  # noqa: E402, F401
from celery_global_rate.broker.held_request import HeldRequest  # noqa: E402
from celery_global_rate.worker.pool import CeleryPool  # noqa: E402

start = CeleryPool.start


def count_released(self: CeleryPool, held: HeldRequest, failed: Callable[[Exception], None]) -> None:
    """In place of `CeleryPool.start`."""
    Count.released += 1
    start(self, held, failed)


CeleryPool.start = count_released  # type: ignore[method-assign]


def pytest_runtest_logfinish() -> None:
    write(received=Count.received, released=Count.released)
