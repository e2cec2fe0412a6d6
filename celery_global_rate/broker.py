"""The worker's connection to its broker, and what held messages need of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: How soon a worker without event loop sees that it may take more messages, in seconds.
LOOK_UP_S = 0.1


def look_up_often(connection: Any, held: Callable[[], int]) -> None:
    """Let a worker's synchronous loop do more than wait for messages, while tasks are held and a moment after.

    It waits two seconds for the next one, and a window that is full gets none: a transport of kombu's own making, Redis
    among them, does not look at the prefetch count meanwhile, and Celery before 5.7 acknowledges nothing.

    Args:
        connection: kombu's, as the consumer has it.
        held: how many tasks are held.
    """
    drain_events = connection.drain_events
    last_held = float("-inf")

    def drain_often(timeout: float | None = None, **kwargs: Any) -> Any:
        nonlocal last_held
        now = time.monotonic()
        if held():
            last_held = now
        if timeout and now - last_held < timeout:
            timeout = min(timeout, LOOK_UP_S)
        return drain_events(timeout=timeout, **kwargs)

    connection.drain_events = drain_often


def lose_once(connection: Any) -> None:
    """Let a connection that is lost be given up for good the first time.

    Celery 5.7 collects it and then closes it as well. Where a Redis broker refuses connections, the first attempt ends
    early, and the second one finds a channel with unacknowledged messages and no way to its server any more: an
    `AttributeError` that ends the worker. Tasks with an ETA do this to stock Celery, held ones would do it to us.
    """
    collect = connection.collect

    def collect_for_good(*args: Any, **kwargs: Any) -> None:
        try:
            collect(*args, **kwargs)
        finally:
            connection._default_channel = None

    connection.collect = collect_for_good
