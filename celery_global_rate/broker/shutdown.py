"""Held messages when the worker ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from . import redis
from .held_request import HeldRequest

logger = logging.getLogger(__name__)


def requeue_held(consumer: Any, requests: Sequence[HeldRequest]) -> None:
    """Requeue what was held at once, in its order: a worker that ends may wait long for the tasks that run.

    Args:
        consumer: the worker's, which takes no more messages then.
        requests: what was held.
    """
    messages = [request.message for request in requests if not request.message.acknowledged]
    tasks = consumer.task_consumer
    if not messages or tasks is None:
        return
    try:
        tasks.cancel()  # or they would be delivered here again
        if redis.is_redis(tasks.channel):
            redis.requeue_in_order(tasks, messages)
        else:
            for message in messages:
                message.requeue()
    except consumer.connection_errors + consumer.channel_errors as exc:  # then they return with the connection
        logger.warning("global-rate: held messages could not be returned to the broker: %s", type(exc).__name__)
