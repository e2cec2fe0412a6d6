"""Held messages when the worker ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from . import redis
from .held_request import HeldRequest

logger = logging.getLogger(__name__)

#: How long RabbitMQ may take to confirm that it sends no more, in seconds.
CONFIRM_S = 5.0


def requeue_held(consumer: Any, is_holding: bool, let_go: Callable[[], Sequence[HeldRequest]]) -> None:
    """Requeue what is held at once, in its order: a worker that ends may wait long for the tasks that run.

    Args:
        consumer: the worker's, which takes no more messages then.
        is_holding: whether anything is held; else there is nothing to do but to let go.
        let_go: lets go of what is held, and returns it. RabbitMQ's last messages arrive before it confirms that no
            more will, and are held as well.
    """
    tasks = consumer.task_consumer
    try:
        try:
            if is_holding and tasks is not None:
                with _time_to_confirm(tasks.channel):
                    tasks.cancel()  # or they would be delivered here again
                    # A signal may interrupt the restart of a consumer, when it has two.
                    for tag in list(getattr(tasks.channel, "callbacks", ())):
                        tasks.channel.basic_cancel(tag)
        finally:
            requests = let_go()
        messages = [request.message for request in requests if not request.message.acknowledged]
        if not messages or tasks is None:
            return
        if redis.is_redis(tasks.channel):
            redis.requeue_in_order(tasks, messages)
        else:
            for message in messages:
                message.requeue()
    except consumer.connection_errors + consumer.channel_errors as exc:  # then they return with the connection
        logger.warning("global-rate: held messages could not be returned to the broker: %s", type(exc).__name__)


def _time_to_confirm(channel: Any) -> AbstractContextManager[Any]:
    """A signal may interrupt a loop that waits a tenth of a second for messages: that is the timeout of its socket."""
    transport = getattr(getattr(channel, "connection", None), "transport", None)
    having_timeout: Callable[[float], AbstractContextManager[Any]] | None = getattr(transport, "having_timeout", None)
    return having_timeout(CONFIRM_S) if having_timeout else nullcontext()
