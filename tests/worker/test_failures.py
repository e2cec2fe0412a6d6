"""A task that fails before it starts: what Celery, its result backend and its broker are told."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, signals
from celery.worker.request import Request
from kombu import Queue

from celery_global_rate.worker.failures import fail

ERROR = "task ask: its cost in bucket tokens, tokens = 'many', is not a whole number >= 0: send a number of units"


class Told:
    """A request of Celery's that was received from a broker in memory, and who is told what of it."""

    def __init__(self, app: Celery, connection: Any, **options: Any) -> None:
        self.app, self.events, self.signalled = app, list[tuple[str, dict[str, Any]]](), list[dict[str, Any]]()
        signature = app.signature("ask", args=("many",), app=app).set(**options)
        self.result = signature.apply_async(connection=connection)
        self.message = Queue("celery").bind(connection.default_channel).get()
        eventer = SimpleNamespace(
            enabled=True, send=lambda name, uuid, **fields: self.events.append((name, {"uuid": uuid, **fields}))
        )
        self.request = Request(
            self.message,
            on_ack=self.message.ack_log_error,
            on_reject=self.message.reject_log_error,
            app=app,
            hostname="w@lab",
            eventer=eventer,
            task=app.tasks["ask"],
            body=self.message.body,
            headers=self.message.headers,
            decoded=False,
        )
        signals.task_failure.connect(self._signalled, sender=app.tasks["ask"])

    def _signalled(self, **fields: Any) -> None:
        self.signalled.append(fields)


def ask(tokens: int) -> None:
    """A task."""


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("proj", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.task(ask, name="ask", shared=False)
    with app.connection_for_write() as connection:
        app.memory = connection
        yield app
        connection.default_channel.queue_purge("celery")
    app.close()


def test_a_failure_is_stored_announced_and_rejected(app: Celery) -> None:
    told = Told(app, app.memory)
    error = ValueError(ERROR)
    fail(told.request, error)

    assert (told.result.state, str(told.result.result), type(told.result.result)) == ("FAILURE", ERROR, ValueError)
    assert told.message.acknowledged
    assert [name for name, _ in told.events] == ["task-failed", "task-rejected"]
    assert ERROR in told.events[0][1]["exception"]
    assert ERROR in told.events[0][1]["traceback"]
    (signalled,) = told.signalled
    assert (signalled["task_id"], signalled["exception"]) == (told.result.id, error)
    assert ERROR in str(signalled["einfo"])
    assert (signalled["args"], signalled["kwargs"]) == (["many"], {})


def test_a_failure_that_nobody_wants_stored_is_not(app: Celery) -> None:
    app.tasks["ask"].ignore_result = True
    told = Told(app, app.memory)
    fail(told.request, ValueError(ERROR))

    assert told.result.state == "PENDING"
    assert told.message.acknowledged


def test_the_result_backend_comes_first_and_may_be_asked_again(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is away nothing is acknowledged or announced."""
    told = Told(app, app.memory)
    with monkeypatch.context() as away:
        away.setattr(type(app.backend), "_store_result", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("away")))
        with pytest.raises(OSError, match="away"):
            fail(told.request, ValueError(ERROR))
    assert (told.message.acknowledged, told.events, told.signalled) == (False, [], [])
    fail(told.request, ValueError(ERROR))

    assert (told.result.state, told.message.acknowledged, len(told.signalled)) == ("FAILURE", True, 1)
