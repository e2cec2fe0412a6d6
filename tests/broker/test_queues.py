"""What is known of a message when its request begins to be held, on a consumer that is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Queue

from celery_global_rate.broker.queues import Queues


class Request:
    """What is read of a request.

    Args:
        priority: of its message.
    """

    eta = None

    def __init__(self, priority: object) -> None:
        self.delivery_info = {"priority": priority}


def rank_on_rabbitmq(priority: object, queue: Queue) -> int:
    """The rank of a message that a queue of RabbitMQ delivers."""
    connection = SimpleNamespace(transport=SimpleNamespace(driver_type="amqp"))
    tasks = SimpleNamespace(_queues={"tasks": queue}, channel=object())
    queues: Any = Queues(SimpleNamespace(connection=connection, task_consumer=tasks))
    rank: int = queues._deliver("tasks", lambda request: queues.hold(request).rank, Request(priority))
    return rank


@pytest.mark.parametrize(
    ("priority", "highest", "rank"),
    [
        (3, {"max_priority": 10}, -3),
        (30, {"max_priority": 10}, -10),
        (3, {"queue_arguments": {"x-max-priority": 5}}, -3),
    ],
)
def test_the_highest_priority_starts_first(priority: int, highest: dict[str, Any], rank: int) -> None:
    assert rank_on_rabbitmq(priority, Queue("tasks", **highest)) == rank


@pytest.mark.parametrize("highest", ["10", [10], None])
@pytest.mark.parametrize("priority", [3, "urgent", None])
def test_what_is_no_priority_has_no_rank(priority: object, highest: object) -> None:
    """An error here would be one in the worker's message path, which ends it."""
    assert rank_on_rabbitmq(priority, Queue("tasks", queue_arguments={"x-max-priority": highest})) == 0


def test_a_queue_that_is_cancelled_meanwhile_has_no_ranks() -> None:
    """`cancel_consumer` forgets a queue, and what it has sent before still arrives."""
    connection = SimpleNamespace(transport=SimpleNamespace(driver_type="amqp"))
    queues: Any = Queues(SimpleNamespace(connection=connection, task_consumer=SimpleNamespace(_queues={})))

    assert queues._deliver("gone", lambda request: queues.hold(request).rank, Request(3)) == 0
