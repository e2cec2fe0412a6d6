"""A worker without an event loop, and how soon it looks up from waiting for messages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: How soon a worker without an event loop sees that it may take more messages, in seconds.
LOOK_UP_S = 0.1


def look_up_often(connection: Any, last_held: Callable[[], float]) -> None:
    """Let a worker's synchronous loop do more than wait for messages, while tasks are held and a moment after.

    It waits two seconds for the next one, and gets none once the prefetch count is reached: a transport of kombu's own
    making, Redis among them, does not look at a new prefetch count meanwhile, and Celery before 5.7 acknowledges
    nothing.

    Args:
        connection: kombu's, as the consumer has it.
        last_held: the last instant at which a task was held (monotonic seconds).
    """
    drain_events = connection.drain_events

    def drain_often(timeout: float | None = None, **kwargs: Any) -> Any:
        if timeout and time.monotonic() - last_held() < timeout:
            timeout = min(timeout, LOOK_UP_S)
        return drain_events(timeout=timeout, **kwargs)

    connection.drain_events = drain_often
