"""Where limits come from: all the places in which Celery lets a task have a rate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task, _state
from celery.exceptions import ImproperlyConfigured

from celery_global_rate.activation import check
from celery_global_rate.declared_limits import Declared, declared_limits
from celery_global_rate.limits.limit import Limit


class ByName:
    """An annotation as Celery's manual shows it: it knows tasks by name and nothing of "any"."""

    def annotate(self, task: Any) -> dict[str, Any] | None:
        return {"rate_limit": "3/s"} if task.name.startswith("proj.") else None


class Base(Task):
    """Of all tasks of an application: `Celery(task_cls=Base)`."""

    rate_limit = "2/s"
    rate_burst = 3


def application(task_cls: Any = None, **conf: Any) -> Celery:
    app = Celery("proj", broker="redis://localhost:6379/0", set_as_current=False, task_cls=task_cls)
    app.conf.update(conf)
    return app


def limit_of(app: Celery, **options: Any) -> Limit | None:
    """The limit of a task with these options."""

    @app.task(name="proj.send", shared=False, **options)
    def send() -> None:
        """Nothing."""

    app.finalize()
    return next(iter(declared_limits(app, app.tasks["proj.send"])), None)


def test_a_task_without_a_rate_has_no_limit() -> None:
    assert limit_of(application()) is None


def test_the_decorator_and_a_base_class_declare_a_rate() -> None:
    class Slow(Task):
        rate_limit = "5/s"
        rate_burst = 7

    assert limit_of(application(), rate_limit="100/m") == Limit.parse("100/m")
    assert limit_of(application(), base=Slow) == Limit.parse("5/s", 7)
    assert limit_of(application(), base=Slow, rate_limit="6/s", rate_burst=8) == Limit.parse("6/s", 8)


def test_a_task_that_is_a_class_declares_a_rate() -> None:
    class Send(Task):
        name = "proj.class"
        rate_limit = 5

    app = application()
    app.register_task(Send())

    assert declared_limits(app, app.tasks["proj.class"]) == (Limit.parse("5/s"),)


NAMED = {"proj.send": {"rate_limit": "10/s", "rate_burst": 4}}
FOR_ALL = {"*": {"rate_limit": "20/s"}}


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (NAMED, Limit.parse("10/s", 4)),
        (FOR_ALL, Limit.parse("20/s")),
        ({"other": {"rate_limit": "10/s"}}, Limit.parse("1/m")),
        ([NAMED, FOR_ALL], Limit.parse("20/s", 4)),  # Celery lets the one for all win
        ([{"other": {"rate_limit": "1/s"}}, NAMED], Limit.parse("10/s", 4)),
        ([ByName()], Limit.parse("3/s")),
        ((f"{__name__}.ByName",), Limit.parse("3/s")),
    ],
)
def test_annotations_change_the_rate_of_a_task(annotations: Any, expected: Limit) -> None:
    assert limit_of(application(task_annotations=annotations), rate_limit="1/m") == expected


@pytest.mark.parametrize("annotation", [ByName(), f"{__name__}.ByName"], ids=["object", "name"])
def test_an_annotation_that_knows_nothing_of_any_lets_the_worker_start(annotation: Any) -> None:
    check(application(task_annotations=(annotation,)))


def test_the_default_is_for_tasks_without_a_rate_of_their_own() -> None:
    assert limit_of(application(task_default_rate_limit="1/m")) == Limit.parse("1/m")
    assert limit_of(application(task_default_rate_limit="1/m"), rate_limit="2/s") == Limit.parse("2/s")
    assert limit_of(application(task_default_rate_limit="1/m"), rate_limit=0) is None


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ({"task_default_rate_limit": "1/m"}, None),
        ({"task_annotations": {"*": {"rate_limit": "1/m", "rate_burst": 2}}}, None),
        ({"task_annotations": [{"other": {}}, {"*": {"rate_limit": "1/m"}}]}, None),
        ({"task_annotations": {"celery.chord_unlock": {"rate_limit": "2/s"}}}, Limit.parse("2/s")),
        (
            {"task_default_rate_limit": "1/m", "task_annotations": {"celery.chord_unlock": {"rate_limit": "2/s"}}},
            Limit.parse("2/s"),
        ),
    ],
)
def test_tasks_of_celery_itself_have_a_limit_only_where_they_are_named(conf: Any, expected: Limit | None) -> None:
    app = application(**conf)
    app.finalize()

    assert declared_limits(app, app.tasks["celery.chord_unlock"]) == ((expected,) if expected else ())
    assert declared_limits(app, app.tasks["celery.backend_cleanup"]) == ()


@pytest.mark.parametrize("way", ["argument", "name", "attribute"])
def test_a_base_class_for_all_tasks_does_not_limit_those_of_celery_itself(way: str) -> None:
    app = application(None if way == "attribute" else Base if way == "argument" else f"{__name__}:Base")
    if way == "attribute":  # as for Flask
        app.Task = Base
    app.conf.task_annotations = {"celery.group": {"rate_limit": "5/s"}}

    assert limit_of(app) == Limit.parse("2/s", 3)
    limited = {name for name in app.tasks if name.startswith("celery.") and declared_limits(app, app.tasks[name])}
    assert limited == {"celery.group"}


def test_a_task_that_shows_another_rate_declares_what_it_did() -> None:
    app = application()
    declared, five = Declared(app), Limit.parse("5/s")
    assert limit_of(app, rate_limit="5/s") == five
    task = app.tasks["proj.send"]
    for rate in ("7/s", None, "100/d"):
        declared.show(task, rate)
        assert task.rate_limit == rate
        assert declared.limits(task) == (five,)
    declared.restore_all()
    assert task.rate_limit == "5/s"

    declared.show(task, "7/s")
    task.rate_limit = "6/s"  # by the application
    assert declared.limits(task) == (Limit.parse("6/s"),)
    declared.restore(task)
    assert task.rate_limit == "6/s"


def test_a_bad_rate_in_an_autodiscovered_module_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "found_by_global_rate"
    package.mkdir()
    (package / "__init__.py").touch()
    task = "from celery import shared_task\n@shared_task(name='found', rate_limit='fast')\ndef found(): pass\n"
    (package / "tasks.py").write_text(task)
    monkeypatch.syspath_prepend(tmp_path)
    # Shared tasks go to every application of the process; this one must not outlive the test.
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
    app = application()
    app.autodiscover_tasks([package.name])
    app.loader.init_worker()  # as a worker does before it sends worker_init

    with pytest.raises(ImproperlyConfigured, match="task found: rate 'fast'"):
        check(app)


def test_eager_tasks_are_not_limited() -> None:
    app = application(task_always_eager=True)
    ran = []

    @app.task(name="proj.eager", rate_limit="1/h", shared=False)
    def eager() -> None:
        ran.append(time.monotonic())

    for _ in range(3):
        eager.delay()

    assert len(ran) == 3
    assert ran[-1] - ran[0] < 1
