"""Commands of remote control in a worker that is made up: what they answer, and what they change."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery

from celery_global_rate.limits.limit import Limit
from celery_global_rate.worker.control import OFF, rate_held, rate_limit, rate_limit_reset, rate_limits
from testbed.server import free_port

from .fakes import Worker, run

FIVE = Limit.parse("5/s")


def limit_of(worker: Worker) -> Limit | None:
    return worker.engine.lanes.lane("proj.task", None, str).limit


def test_a_new_limit_is_answered_in_force_here_and_kept_for_all(worker: Worker, redis_client: redis.Redis) -> None:
    answer = worker.control(rate_limit, "proj.task", "5/s")

    assert answer == {"ok": "new rate limit set successfully for the whole cluster: 5/s, before 1/h"}
    assert limit_of(worker) == FIVE
    kept: Any = redis_client.hget("{global-rate:v1:proj}:records", "proj.task")
    assert '"rate":"5\\/s"' in kept


def test_a_reset_puts_the_declared_limit_in_force(worker: Worker) -> None:
    worker.control(rate_limit, "proj.task", "5/s")
    answer = worker.control(rate_limit_reset, "proj.task")

    assert answer == {"ok": "rate limit reset successfully for the whole cluster: 1/h, before 5/s"}
    assert limit_of(worker) == Limit.parse("1/h")


def test_no_limit_is_one_too(worker: Worker) -> None:
    answer = worker.control(rate_limit, "proj.task", "0")

    assert "rate limit disabled successfully" in answer["ok"]
    assert limit_of(worker) is None


def test_a_task_without_a_limit_gets_one(worker: Worker) -> None:
    worker.control(rate_limit, "proj.free", "1/h")
    worker.receive(3, worker.free_task)
    worker.loop.run_until(lambda: worker.released)

    assert worker.engine.scheduler.held == 2


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        (rate_limit, ("proj.nobody", "5/s"), "unknown task"),
        (rate_limit_reset, ("proj.nobody",), "unknown task"),
        (rate_limit, ("proj.task", "soon"), "Invalid rate limit string"),
    ],
)
def test_what_is_invalid_is_refused_and_changes_nothing(
    worker: Worker, redis_client: redis.Redis, command: Any, args: tuple[str, ...], expected: str
) -> None:
    assert expected in worker.control(command, *args)["error"]
    assert limit_of(worker) == Limit.parse("1/h")
    assert not redis_client.exists("{global-rate:v1:proj}:records")


def test_a_task_with_its_own_strategy_has_no_limit_to_change(worker: Worker) -> None:
    worker.task.Strategy = "proj.strategies:own"

    assert "own Strategy" in worker.control(rate_limit, "proj.task", "5/s")["error"]
    assert "own Strategy" in worker.control(rate_limit_reset, "proj.task")["error"]


def test_a_redis_that_is_away_is_named_and_nothing_is_changed(worker: Worker) -> None:
    address = f"redis://127.0.0.1:{free_port()}"
    worker.engine.settings = type(worker.engine.settings)(f"{address}/0", {}, "global-rate:v1:proj", 100)
    answer = worker.control(rate_limit, "proj.task", "5/s")

    assert f"no answer from the Redis at {address}" in answer["error"]
    assert "try again" in answer["error"]
    assert limit_of(worker) == Limit.parse("1/h")


def test_what_is_received_too_late_undoes_nothing_that_came_since(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This worker's loop was blocked for a minute: another one may have obeyed this, and the next command, long ago."""
    worker.step.broadcast.id = "a" * 40
    worker.control(rate_limit, "proj.task", "5/s")
    worker.step.broadcast.id = "b" * 40
    monkeypatch.setattr(type(worker.engine), "blocked_s", 60.0)

    assert "received too late" in worker.control(rate_limit, "proj.task", "9/s")["error"]
    assert limit_of(worker) == FIVE


def test_a_message_that_another_worker_has_obeyed_long_ago_changes_nothing(worker: Worker) -> None:
    """All workers hear the same one, this one after the message that came next."""
    for message, rate in (("a", "9/s"), ("b", "5/s")):
        worker.step.broadcast.id = message * 40
        worker.control(rate_limit, "proj.task", rate)
    worker.step.broadcast.id = "a" * 40
    answer = worker.control(rate_limit, "proj.task", "9/s")

    assert answer == {"error": "received too late: a newer override exists, and 5/s is in force"}
    assert limit_of(worker) == FIVE


def test_what_is_declared_and_in_force(worker: Worker) -> None:
    before = worker.control(rate_limits)["proj.task"]
    worker.control(rate_limit, "proj.task", "5/s")
    after = worker.control(rate_limits)["proj.task"]

    assert (before["declared"], before["in_force"], before["source"]) == ("1/h", "1/h", "declared")
    assert (after["declared"], after["in_force"], after["by"]) == ("1/h", "5/s", "control, w@lab")


def test_what_is_held(worker: Worker) -> None:
    nothing = worker.control(rate_held)
    worker.receive(3)
    worker.loop.run_until(lambda: worker.released)
    held = worker.control(rate_held)["proj.task"]

    assert nothing == {}
    assert (held["count"], [task["id"] for task in held["tasks"]]) == (2, ["m1", "m2"])
    assert held["queues_aside"] == {}


def test_a_worker_without_the_extension_says_so_and_obeys_as_celery_does() -> None:
    app = Celery("proj", set_as_current=False, broker="memory://")
    task = app.task(name="proj.task", shared=False)(run)
    app.finalize()
    reset: list[float] = []
    consumer = SimpleNamespace(disable_rate_limits=False, reset_rate_limits=lambda: reset.append(time.monotonic()))
    worker = SimpleNamespace(app=app, consumer=consumer)

    assert rate_limit(worker, "proj.task", "5/s") == {"ok": "new rate limit set successfully"}
    assert (task.rate_limit, len(reset)) == ("5/s", 1)
    for answer in (rate_limit_reset(worker, "proj.task"), rate_limits(worker), rate_held(worker)):
        assert answer == {"error": OFF}
