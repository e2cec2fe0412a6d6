"""What the page "Buckets" says is so: its blocks are run as they stand there."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, _state

from celery_global_rate import GlobalRateLimit
from celery_global_rate.activation import check
from celery_global_rate.cli.commands import COMMANDS
from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.limit import Limit, Limits, spelled
from celery_global_rate.limits.override import Kept, parse_rates
from celery_global_rate.limits.windows import Calendar
from celery_global_rate.named_buckets import NamedBucket, read_named_buckets
from celery_global_rate.scheduling.lane import Lane
from celery_global_rate.worker.costs import RequestCosts
from celery_global_rate.worker.keys import key_value
from celery_global_rate.worker.lanes import Lanes
from testbed.server import root

from ..conftest import Figures, Server

PAGE = (root() / "docs" / "buckets.rst").read_text()
#: R and J for the bounds of the page, in seconds: those of its formula.
UNCERTAINTY_S, POOL_DELAY_S = 0.010, 0.005
DAY_S = 86400


def block(title: str, language: str = "python") -> str:
    """The first code block below a title."""
    (section,) = re.findall(rf"^{title}\n-+\n((?:.*\n)*?)(?=.*\n--|\Z)", PAGE, re.MULTILINE)
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)", section, re.MULTILINE)
    return textwrap.dedent(found[0])


def nothing() -> None:
    """A task."""


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Celery:
    """An application with tasks to which the blocks apply."""
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
    app = Celery("proj", broker="redis://localhost:6379/0", set_as_current=False)
    app.steps["consumer"].add(GlobalRateLimit)
    for name in ("crm.push", "crm.export", "shop.pay", "mail.send"):
        app.task(nothing, name=name, shared=False)
    app.task(nothing, name="shop.export", rate_limit="2/m", shared=False)
    return app


def configured(app: Celery, title: str) -> dict[str, NamedBucket]:
    """The named buckets of a block, which a worker would accept."""
    exec(block(title), {"app": app})
    check(app)
    return read_named_buckets(app.conf)


class Declared:
    """Limits in force: no operator has set any."""

    def in_force(self, name: str, declared: Limits) -> tuple[Limits, int]:
        return declared, 0

    def floor_us(self, name: str, value: str | None) -> int:
        return 0


def limits_of(app: Celery, named: dict[str, NamedBucket]) -> Callable[[str, str], Limits]:
    """What a task from a queue has to pass."""

    def bind(lane: Lane, buckets: tuple[Bucket, ...], floor_us: int) -> None:
        lane.bind(buckets)

    lanes = Lanes(named, lambda: app.tasks, Declared(), Declared(), bind)
    for name, task in app.tasks.items():
        if limit := Limit.parse(task.rate_limit):
            lanes.declare(name, (limit,))
    return lambda task, queue: lanes.lane(task, queue, lambda key: None).limits


@contextlib.contextmanager
def worker_on(folder: Path, broker: str) -> Iterator[dict[str, Any]]:
    """A worker of proj.py there; gives the options with which other processes of that project start."""
    options: dict[str, Any] = {"cwd": folder, "env": {**os.environ, "CELERY_BROKER_URL": broker}}
    command = [sys.executable, "-m", "celery", "-A", "proj", "worker", "-l", "INFO", "-c", "2", "--without-mingle"]
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen(command, stdout=log, stderr=log, **options)
    try:
        yield options
    finally:
        worker.terminate()
        worker.wait(30)


def starts_in(folder: Path, count: int) -> list[tuple[float, str]]:
    """The first lines of tasks of a worker there, when (epoch seconds) and which, once there are so many."""

    def found() -> list[tuple[float, str]]:
        pattern = r"^\[(\S+ \S+): WARNING/ForkPoolWorker-\d+\] (fetched|pushed)$"
        lines = re.findall(pattern, (folder / "log").read_text(), re.MULTILINE)
        return sorted((datetime.strptime(when, "%Y-%m-%d %H:%M:%S,%f").timestamp(), what) for when, what in lines)

    deadline = time.monotonic() + 30
    while len(found()) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return found()


def test_each_tenant_has_a_bucket(project: Celery) -> None:
    """The block and its task: two tenants have each their own limit, and share the other one."""
    named = configured(project, "Per tenant")
    task = project.tasks["crm.sync"]
    lanes = Lanes(
        named, lambda: project.tasks, Declared(), Declared(), lambda lane, buckets, floor_us: lane.bind(buckets)
    )

    def places(*args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        request = SimpleNamespace(task=task, args=args, kwargs=kwargs)
        return [it.place for it in lanes.lane("crm.sync", "celery", partial(key_value, request)).buckets]

    shared = ("crm-api", "smooth")
    assert places("acme") == places(tenant_id="acme") == [("tenant", "smooth:acme"), shared]
    assert places(7, since="today") == [("tenant", "smooth:7"), shared]
    assert places(None) == places(["a", "b"]) == [("tenant", "smooth"), shared]


def test_requests_and_tokens_of_an_api(project: Celery) -> None:
    """The block and its task, and what its list says of values."""
    named = configured(project, "Costs")
    task, costs = project.tasks["llm.ask"], RequestCosts(named)

    def cost(*args: Any, headers: Any = None) -> tuple[int, ...] | None:
        request = SimpleNamespace(
            task=task, args=args, kwargs={}, request_dict=headers or {}, message=SimpleNamespace(headers={})
        )
        return costs.read(request, ("llm.ask", *named))

    assert [spelled(bucket.limits) for bucket in named.values()] == ["1/s", "1500/s"]
    assert cost("hi", 3000) == (1, 1, 3000)
    assert cost("hi", 0) == (1, 1, 0)
    assert cost("hi") == cost("hi", None) == (1, 1, 1)
    assert cost("ping", 1, headers={"global_rate_cost": 0}) == (0, 0, 0)
    for bad in ("5", 5.0, True, -1):
        with pytest.raises(ValueError, match="is not a whole number >= 0"):
            cost("hi", bad)
    assert 3000 * named["llm-tokens"].limits[0].interval_s == pytest.approx(2, abs=0.01)


def test_one_budget_for_several_tasks(tmp_path: Path, empty_redis: Server, figures: Figures) -> None:
    """The block is a project, and a worker runs it: 30 tasks, two kinds, 10/s.

    From the first line of the tasks to the last are 29 T: not less by more than D + R + J, and by three slots more at
    the most, which a busy machine may miss.
    """
    (tmp_path / "proj.py").write_text(block("One budget for several tasks"))
    limit = Limit.parse("10/s")
    assert limit is not None
    with worker_on(tmp_path, f"{empty_redis.url}/0") as options:
        send = "from proj import fetch, push; [(fetch.delay(n), push.delay(n), push.delay(n)) for n in range(10)]"
        subprocess.run([sys.executable, "-c", send], check=True, timeout=60, **options)
        starts = starts_in(tmp_path, 30)
    span_s = starts[-1][0] - starts[0][0]
    figures(f"one budget for several tasks: {len(starts)} starts in {span_s:.3f} s")

    assert Counter(what for _, what in starts) == {"fetched": 10, "pushed": 20}
    assert span_s >= 29 * limit.interval_s - (limit.grace_s + UNCERTAINTY_S + POOL_DELAY_S)
    assert span_s <= 32 * limit.interval_s
    (logged,) = re.findall(r"^   (global-rate: bucket .*)$", PAGE, re.MULTILINE)
    assert f"{logged}\n" in (tmp_path / "log").read_text()


def test_a_limit_for_a_queue(project: Celery) -> None:
    limits = limits_of(project, configured(project, "A limit for a queue"))

    assert project.amqp.router.route({}, "mail.send")["queue"].name == "mail"
    assert "-Q mail,celery" in block("A limit for a queue", "sh")
    assert spelled(limits("mail.send", "mail")) == spelled(limits("shop.pay", "mail")) == "5/s"
    assert limits("mail.send", "celery") == limits("shop.pay", "celery") == ()


def most(limit: Limit, window_s: float) -> int:
    """First lines in any window of that length: ``b + (w + D + R + J)/T``, rounded down."""
    late_s = limit.grace_s + UNCERTAINTY_S + POOL_DELAY_S
    return int(limit.burst + (window_s + late_s) / limit.interval_s)


def test_per_second_and_per_day(project: Celery) -> None:
    """In any second 20 at the most, and in each day of California 10,000."""
    per_second, per_day = limits_of(project, configured(project, "Per second and per day"))("crm.push", "celery")

    assert most(per_second, 1) <= 20
    assert per_day == Limit.in_windows("10000/d", None, "America/Los_Angeles")


def test_the_quotas_in_its_table_begin_when_it_says(project: Celery) -> None:
    """By the window of noon on Thursday, November 26th 2026; a row with "and" adds to the one above it."""
    table = PAGE.split("quota is counted")[1].split("\nA day is from")[0]
    begins: dict[str, tuple[int, ...]] = {}
    rate: dict[str, str] = {}
    for what, also, text in re.findall(r"^(by .*?)  +(and )?``(.*)``$", table, re.MULTILINE):
        added = ast.literal_eval(f"{{{text}}}" if also else text)
        rate = rate if also else added
        project.conf.global_rate_buckets = {"api": {"rate": {**rate, **added}, "tasks": ["crm.*"]}}
        (limit,) = read_named_buckets(project.conf)["api"].limits
        assert isinstance(limit.window, Calendar)
        begin_us, *_ = limit.window.edges(datetime(2026, 11, 26, 12, tzinfo=timezone.utc).timestamp() * 1e6)
        begins[what] = datetime.fromtimestamp(begin_us / 1e6, timezone.utc).timetuple()[1:4]

    assert begins == {
        "by the day, from midnight UTC": (11, 26, 0),
        "by the day of a time zone": (11, 26, 8),
        "by the day, from 09:00 UTC": (11, 26, 9),
        "by the week, from Monday": (11, 23, 0),
        "by the week, from Sunday": (11, 22, 0),
        "by the month": (11, 1, 0),
        "by the month, from its fifth day": (11, 5, 0),
        "by the quarter": (10, 1, 0),
        "by the hour of the clock": (11, 26, 12),
    }


@pytest.mark.long
def test_a_fixed_window_can_be_seen(tmp_path: Path, empty_redis: Server, figures: Figures) -> None:
    """150 tasks, sent four seconds or more before an edge: 100 start at once, and 50 after that edge.

    The clock of this machine is that of Redis, so no first line is before the edge of its window, and those of the
    first 100 are before its end: tasks of no length, two at a time, need less than four seconds. A worker that waits
    asks before the edge, so the other 50 start within a second of it.
    """
    (tmp_path / "proj.py").write_text(block("One budget for several tasks") + block("Fixed windows"))
    with worker_on(tmp_path, f"{empty_redis.url}/0") as options:
        deadline = time.monotonic() + 30
        while " ready." not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        if time.time() % 10 > 5:
            time.sleep(10 - time.time() % 10)
        send = "from proj import fetch; [fetch.delay(n) for n in range(150)]"
        subprocess.run([sys.executable, "-c", send], check=True, timeout=60, **options)
        starts = [at for at, _ in starts_in(tmp_path, 150)]
    edge = starts[0] // 10 * 10 + 10
    windows = Counter(at // 10 * 10 - edge for at in starts)
    figures(
        f"100/10s fixed: {dict(windows)} starts; before the edge {starts[99] - edge:.3f} s, after it "
        f"{starts[100] - edge:.3f} to {starts[-1] - edge:.3f} s"
    )

    assert windows == {-10: 100, 0: 50}
    assert starts[-1] <= edge + 1


def test_in_any_24_hours(project: Celery) -> None:
    text = block("In any 24 hours")
    per_second, per_day = limits_of(project, configured(project, "In any 24 hours"))("crm.push", "celery")

    assert most(per_second, 1) <= 20
    assert most(per_day, DAY_S) == 10_000
    assert per_day.interval_s == 9.6
    assert per_day.burst * per_day.interval_s == (2 * 60 + 40) * 60
    assert most(Limit(8_640_000, 0, 1000), DAY_S) == 11_000
    (other,) = re.findall(r"``(\{.*?\})`` stays within 10,000 too", PAGE)
    exec(text.replace('{"rate": "9000/d", "burst": 1000}', other), {"app": project})
    assert most(read_named_buckets(project.conf)["crm-api"].limits[1], DAY_S) == 10_000


def test_refills_by_a_crontab(project: Celery) -> None:
    exec(block("Refills by a crontab"), {"app": project})
    bucket = read_named_buckets(project.conf)["crm-api"]
    limits, text = parse_rates(block("Refills by a crontab", "sh").split()[-1], [Kept.of(bucket.limits[0])])

    assert spelled(bucket.limits) == "1000/refill at 0 * * * * Europe/Berlin, at most 2000"
    assert text == "500/refill at 0 * * * * Europe/Berlin, at most 2000"
    assert [limit.burst for limit in limits] == [2000]


def test_the_limits_in_its_table_hold(project: Celery) -> None:
    limits = limits_of(project, configured(project, "Which limits hold for a task"))
    table = PAGE.split("these limits hold:")[1].split("\n* ")[0]
    rows = re.findall(r"^``(\S+?)``(, own ``\"2/m\"``)?\s+``(\w+)``\s+(\S.*)$", table, re.MULTILINE)

    assert len(rows) == table.count("``crm``") + table.count("``celery``") == 7
    for task, own, queue, text in rows:
        assert text == ("; ".join(map(str, limits(task, queue))) or "none"), task
        assert bool(own) == (project.tasks[task].rate_limit is not None)


def test_its_commands_exist(project: Celery) -> None:
    """And the rates in them are as many as the example declares."""
    kept = [Kept.of(limit) for limit in configured(project, "Per second and per day")["crm-api"].limits]
    text = block("Changing them", "sh")

    assert set(re.findall(r"global-rate (\w+) ", text)) == {it.name for it in COMMANDS}
    for rates in re.findall(r"crm-api (\S+/\S+)", text):
        assert len(parse_rates(rates, kept)[0]) == len(kept)
