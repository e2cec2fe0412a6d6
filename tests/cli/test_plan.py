"""`global-rate plan`: which limits each task has to pass, and what cannot be meant."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import Celery, _state
from click.testing import CliRunner, Result

from celery_global_rate.cli.main import global_rate


def sync(tenant_id: str, since: str | None = None) -> None:
    """A task of a tenant."""


def ping() -> None:
    """A task of nobody."""


def planned(app: Celery) -> Result:
    return CliRunner().invoke(global_rate, ["plan"], obj=SimpleNamespace(app=app, no_color=True))


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Celery:
    """One without Redis, without a broker, and without the tasks that a plug-in of pytest shares with all."""
    own = {it for it in _state._on_app_finalizers if it.__module__ == "celery.app.builtins"}
    monkeypatch.setattr(_state, "_on_app_finalizers", own)
    app = Celery("proj", set_as_current=False, broker="memory://")
    app.task(name="crm.sync", shared=False)(sync)
    app.task(name="crm.ping", shared=False, rate_limit="50/s")(ping)
    app.task(name="pay", shared=False)(ping)
    return app


def test_without_named_buckets_each_task_has_its_own(app: Celery) -> None:
    assert planned(app).output.splitlines() == [
        "TASK      FROM QUEUE  LIMITS",
        "crm.ping  any         its own 50/s",
        "crm.sync  any         none",
        "pay       any         none",
    ]


def test_a_row_for_each_queue_that_makes_a_difference_and_what_is_in_vain(app: Celery) -> None:
    app.conf.task_routes = {"pay": {"queue": "money", "rate_limit": "10/m"}}
    app.conf.global_rate_buckets = {
        "crm-api": {
            "rate": ["20/s", {"rate": "10000/d", "window": "fixed"}],
            "tasks": ["crm.*", "nobody.*"],
            "queues": ["crm"],
        },
        "tenant": {"rate": "5/s", "tasks": ["crm.*"], "key": "tenant_id", "cost": "since"},
    }
    crm = "crm-api 20/s and 10000/d fixed; tenant 5/s per tenant_id, cost since"

    assert planned(app).output.splitlines() == [
        "TASK      FROM QUEUE  LIMITS",
        f"crm.ping  money       its own 50/s; {crm}; money 10/m",
        f"crm.ping  any other   its own 50/s; {crm}",
        f"crm.sync  money       {crm}; money 10/m",
        f"crm.sync  any other   {crm}",
        "pay       crm         crm-api 20/s and 10000/d fixed",
        "pay       money       money 10/m",
        "pay       any other   none",
        "",
        "bucket crm-api: no task of this application matches 'nobody.*'",
        "bucket tenant: crm.ping has no argument tenant_id: such tasks share one bucket",
        "bucket tenant: crm.ping has no argument since: such tasks cost 1",
        "task crm.ping: its own 50/s has no effect beside 20/s of bucket crm-api",
    ]


@pytest.mark.parametrize(("cost", "is_named"), [(None, True), (5, True), ("tokens", False)])
def test_a_task_may_need_its_own_limit_beside_a_bucket_that_its_starts_may_pass_by(
    app: Celery, cost: object, is_named: bool
) -> None:
    app.conf.global_rate_buckets = {"api": {"rate": "20/s", "tasks": ["crm.ping"], "cost": cost}}

    assert ("its own 50/s has no effect" in planned(app).output) == is_named


def test_what_a_worker_would_refuse_is_refused(app: Celery) -> None:
    app.conf.global_rate_buckets = {"crm-api": {"rate": "ten", "tasks": ["crm.*"]}}
    refused = planned(app)

    assert refused.exit_code == 1
    error = "global-rate: global_rate_buckets, crm-api: rate: rate 'ten' cannot be read"
    assert str(refused.exception).startswith(error)
