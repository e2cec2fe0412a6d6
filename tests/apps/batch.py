"""A task with its own strategy, as those of celery-batches have: two messages are one start."""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.utils.imports import symbol_by_name
from celery.worker.request import create_request_cls

from testbed.app import app, record


class InPairs(Task):
    """Hands every second message to the pool, and acknowledges the others."""

    abstract = True
    typing = False

    def Strategy(self, task: Any, app: Any, consumer: Any) -> Any:  # noqa: N802  (Celery's name)
        request_cls = create_request_cls(
            symbol_by_name(task.Request), task, consumer.pool, consumer.hostname, consumer.event_dispatcher, app=app
        )
        waiting: list[Any] = []

        def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **kwargs: Any) -> None:
            waiting.append(
                request_cls(message, on_ack=ack, on_reject=reject, app=app, hostname=consumer.hostname, task=task)
            )
            if len(waiting) == 2:
                waiting.pop(0).acknowledge()
                consumer.on_task_request(waiting.pop())

        return on_message


@app.task(name="batch", base=InPairs, bind=True, rate_limit="1/h")
def batch(self: Any) -> None:
    record("start", self.name, self.request.id)
