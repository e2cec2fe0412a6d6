"""Where limits come from: all the places in which Celery lets a task have a rate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Task, _state, chain, chord, group
from celery.exceptions import ImproperlyConfigured

from benchmarks.cluster import Cluster
from celery_global_rate.activation import check
from celery_global_rate.declared_limits import Declared, declared_limit
from celery_global_rate.limits.limit import Limit

from .conftest import Figures, Server

INCLUDE = ("-I", "tests.apps.project")


class ByName:
    """An annotation as Celery's manual shows it: it knows tasks by name and nothing of "any"."""

    def annotate(self, task: Any) -> dict[str, Any] | None:
        return {"rate_limit": "3/s"} if task.name.startswith("proj.") else None


class Base(Task):  # type: ignore[misc]
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
    return declared_limit(app, app.tasks["proj.send"])


def test_a_task_without_a_rate_has_no_limit() -> None:
    assert limit_of(application()) is None


def test_the_decorator_and_a_base_class_declare_a_rate() -> None:
    class Slow(Task):  # type: ignore[misc]
        rate_limit = "5/s"
        rate_burst = 7

    assert limit_of(application(), rate_limit="100/m") == Limit.parse("100/m")
    assert limit_of(application(), base=Slow) == Limit.parse("5/s", 7)
    assert limit_of(application(), base=Slow, rate_limit="6/s", rate_burst=8) == Limit.parse("6/s", 8)


def test_a_task_that_is_a_class_declares_a_rate() -> None:
    class Send(Task):  # type: ignore[misc]
        name = "proj.class"
        rate_limit = 5

    app = application()
    app.register_task(Send())

    assert declared_limit(app, app.tasks["proj.class"]) == Limit.parse("5/s")


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

    assert declared_limit(app, app.tasks["celery.chord_unlock"]) == expected
    assert declared_limit(app, app.tasks["celery.backend_cleanup"]) is None


@pytest.mark.parametrize("way", ["argument", "name", "attribute"])
def test_a_base_class_for_all_tasks_does_not_limit_those_of_celery_itself(way: str) -> None:
    app = application(None if way == "attribute" else Base if way == "argument" else f"{__name__}:Base")
    if way == "attribute":  # as for Flask
        app.Task = Base
    app.conf.task_annotations = {"celery.group": {"rate_limit": "5/s"}}

    assert limit_of(app) == Limit.parse("2/s", 3)
    limited = {name for name in app.tasks if name.startswith("celery.") and declared_limit(app, app.tasks[name])}
    assert limited == {"celery.group"}


def test_a_task_that_shows_another_rate_declares_what_it_did() -> None:
    app = application()
    declared, five = Declared(app), Limit.parse("5/s")
    assert limit_of(app, rate_limit="5/s") == five
    task = app.tasks["proj.send"]
    for rate in ("7/s", None, "100/d"):
        declared.show(task, rate)
        assert task.rate_limit == rate
        assert declared.limit(task) == five
    declared.restore_all()
    assert task.rate_limit == "5/s"

    declared.show(task, "7/s")
    task.rate_limit = "6/s"  # by the application
    assert declared.limit(task) == Limit.parse("6/s")
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


def test_a_retry_is_a_start_like_any_other(empty_redis: Server, figures: Figures) -> None:
    """A task at 2/s that retries at once: starts are T = 0.5 s apart, less D + R (0.06 s), and noise of a start."""
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1") as cluster:
        cluster.start(1, options=INCLUDE)
        cluster.send("again")
        cluster.wait_for(4, 10, task="again")
        starts = cluster.instants("start", "again")
    gaps = [later - earlier for earlier, later in zip(starts, starts[1:])]
    figures(f"a task at 2/s that retries at once: gaps {[round(gap, 2) for gap in gaps]}")

    assert len(gaps) == 3
    assert min(gaps) >= 0.4
    assert max(gaps) <= 1


@pytest.mark.parametrize("given", ["by a default", "by a base class"])
@pytest.mark.parametrize("joined", ["by Redis", "by chord_unlock", "by chord_unlock, stock"])
def test_a_rate_for_all_tasks_stalls_no_chord(
    empty_redis: Server, figures: Figures, tmp_path: Path, joined: str, given: str
) -> None:
    """1/m for all, parts at 50/s: a chain, a group and a chord are done at once; two tasks at 1/m are not.

    Redis joins a chord by itself. A backend of files needs `celery.chord_unlock`, which looks after 1 s, and then every
    0.2 s until the header, 2 s long, is done; a process is free for the first look. In stock Celery the second look has
    to wait for a minute.
    """
    stock, is_default = "stock" in joined, given == "by a default"
    backend = f"{empty_redis.url}/0" if joined == "by Redis" else f"file://{tmp_path}"
    conf = {"result_backend": backend, "result_chord_retry_interval": 0.2}
    conf.update({"task_default_rate_limit": "1/m"} if is_default else {})
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", extension=not stock, conf=conf) as cluster:
        if not is_default:
            cluster.setup["task_cls"] = "tests.apps.base:Base"
        app = cluster.app
        app.conf.result_backend = backend
        cluster.start(1, options=INCLUDE)
        add, total, begin = app.signature("add", app=app), app.signature("total", app=app), time.monotonic()
        cluster.send("free", 2)
        results = [
            chain(add.clone((1, 2)), add.clone((3,))).apply_async(),
            group(add.clone((number, 1)) for number in range(3)).apply_async(),
            chord([add.clone((number, 1, number * 2.0)) for number in range(2)], total).apply_async(),
        ]
        values = [result.get(timeout=15) for result in results[: 2 if stock else 3]]
        if stock:
            cluster.wait_for(7, 10, task="add")
            time.sleep(3)
        took = time.monotonic() - begin
        at_the_default, joins = len(cluster.instants("start", "free")), len(cluster.instants("start", "total"))
    figures(f"chain, group and chord under 1/m {given}: {took:.2f} s, the chord joined {joins} time(s)")

    assert values == [6, [1, 2, 3], 3][: len(values)]
    assert joins == (0 if stock else 1)
    assert at_the_default == 1
    assert stock or took < 5
