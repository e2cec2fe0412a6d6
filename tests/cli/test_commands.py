"""The commands of an operator, in this process and on a real Redis: what they print, and what is in force then."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import redis
from celery import Celery
from click.testing import CliRunner, Result

from celery_global_rate.cli import show
from celery_global_rate.cli.main import global_rate
from celery_global_rate.limits.bucket import OWN
from celery_global_rate.limits.override import LONGEST_REASON
from celery_global_rate.storage.blocking_store import BlockingStore
from celery_global_rate.storage.location import Location
from testbed.server import free_port

from ..conftest import Server

Run = Callable[..., Result]
RECORDS = "{global-rate:v1:proj}:records"


def run_task() -> None:
    """What the tasks would do."""


@pytest.fixture
def app(redis_server: Server, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Celery:
    """One with a limited task, and one without a limit. `show` watches for a moment, not for a second."""
    monkeypatch.setattr(show, "SAMPLE_S", 0.01)
    app = Celery("proj", set_as_current=False, broker="memory://")
    app.conf.global_rate_url = f"{redis_server.url}/9"
    app.task(name="proj.task", rate_limit="1/h", shared=False)(run_task)
    app.task(name="proj.free", shared=False)(run_task)
    return app


@pytest.fixture
def quota(app: Celery) -> None:
    """A named bucket with a smooth and a fixed limit, one with a fixed limit alone, and one with a sliding one."""
    day = {"rate": "10000/d", "window": "fixed", "timezone": "America/Los_Angeles"}
    app.conf.global_rate_buckets = {
        "crm-api": {"rate": [{"rate": "20/s", "burst": 3}, day], "tasks": ["crm.*"]},
        "report": {"rate": {"rate": "5/7d", "window": "fixed", "offset": "6d"}, "tasks": ["report.*"]},
        "poll": {"rate": {"rate": "5/10s", "window": "sliding"}, "tasks": ["poll.*"]},
    }


@pytest.fixture
def run(app: Celery) -> Run:
    """Runs a command; returns its result."""

    def run(*words: str, is_good: bool = True) -> Result:
        done = CliRunner().invoke(global_rate, words, obj=SimpleNamespace(app=app, no_color=True))
        assert (done.exit_code == 0) == is_good, done.output
        return done

    return run


def test_set_and_reset_say_what_is_in_force_and_what_was_before(run: Run) -> None:
    assert run("set", "proj.task", "5/s").output == "proj.task: 5/s by override; 1/h as declared\n"
    assert run("set", "proj.task", "none").output == "proj.task: no limit by override; 1/h as declared; before 5/s\n"
    assert run("reset", "proj.task").output == "proj.task: 1/h as declared; before none\n"


@pytest.mark.usefixtures("quota")
def test_a_rate_for_a_fixed_window_changes_the_number_of_starts_alone(app: Celery, run: Run) -> None:
    """Window, time zone and offset stay as declared; when a deploy changes them, the order has no effect."""
    assert run("set", "crm-api", "15/s,8000/d").output == (
        "crm-api: 15/s, burst 3 and 8000/d fixed, America/Los_Angeles by override; "
        "20/s, burst 3 and 10000/d fixed, America/Los_Angeles as declared\n"
    )
    assert run("set", "report", "4/7d").output == (
        "report: 4/7d fixed, offset 6d by override; 5/7d fixed, offset 6d as declared\n"
    )
    (facts,) = json.loads(run("show", "report", "--json", "-t", "0").output)
    assert (facts["declared"], facts["in_force"]) == ("5/7d fixed, offset 6d", "4/7d fixed, offset 6d")

    app.conf.global_rate_buckets["report"]["rate"]["offset"] = "5d"
    (facts,) = json.loads(run("show", "report", "--json", "-t", "0").output)
    assert (facts["source"], facts["in_force"]) == ("declared", "5/7d fixed, offset 5d")
    assert "4/7d fixed, offset 6d was set, which is another window: it has no effect" in run("show").output


@pytest.mark.usefixtures("quota")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("crm-api", "15/s,8000/h"), "rate '8000/h' has another period than the declared fixed window: use N/d, or"),
        (("crm-api", "8000/d"), "2 rates are declared: write as many"),
        (("crm-api", "15/s,0.5/d"), "rate '0.5/d' is not a number of starts in a window"),
        (("report", "4/7d", "--burst", "2"), "report has a fixed window: --burst is for limits without one"),
        (("poll", "4/10s", "--burst", "2"), "poll has a sliding window: --burst is for limits without one"),
    ],
)
def test_another_window_than_declared_cannot_be_set(
    run: Run, redis_client: redis.Redis, words: tuple[str, ...], expected: str
) -> None:
    assert expected in " ".join(run("set", *words, is_good=False).output.split())
    assert not redis_client.exists(RECORDS)


def test_an_override_ends_when_it_is_to(run: Run) -> None:
    assert run("set", "proj.task", "5/s", "--expires", "90s").output.startswith("proj.task: 5/s by override for 9")
    (change,) = json.loads(run("history", "proj.task", "--json").output)

    assert 89e6 < change["until_us"] - change["when_us"] <= 90e6


def test_resume_ends_a_pause_that_an_api_has_asked_for(app: Celery, run: Run, redis_client: redis.Redis) -> None:
    """Of a task, or of a value of a key, which leaves the operator's pause of all as it is."""
    tenants = {"rate": "20/s", "tasks": ["crm.*"], "key": "tenant"}
    app.conf.global_rate_buckets = {"tenants": tenants}
    with BlockingStore(Location(app.conf.global_rate_url, {}, "global-rate:v1:proj")) as store:
        store.back_off("proj.task", [OWN], 60_000_000, "")
        store.back_off("tenants", ["smooth:a%2Fb"], 60_000_000, "")
    over = "the pause that its API has asked for is over"

    assert run("resume", "proj.task").output == f"proj.task: {over}\nproj.task: 1/h as declared\n"
    assert run("resume", "proj.task").output == "proj.task: 1/h as declared\n"
    run("pause", "tenants")
    assert run("resume", "tenants", "--key", "a/b").output == f"tenants: {over}\n"
    assert run("resume", "tenants", "--key", "c").output == "tenants: its API has asked for no pause for c\n"
    assert "paused" in run("show", "tenants", "-t", "0").output
    assert (
        "--key is for a named bucket with a key: tenants" in run("resume", "--all", "--key", "c", is_good=False).output
    )


def test_a_pause_lasts_until_resume(run: Run) -> None:
    assert run("pause", "proj.task").output == "proj.task: 1/h as declared; paused until resume\n"
    (facts,) = json.loads(run("show", "proj.task", "--json", "-t", "0").output)
    assert (facts["in_force"], facts["source"], facts["paused"]["until_us"]) == ("1/h", "declared", None)
    assert run("resume", "proj.task").output == "proj.task: 1/h as declared\n"


def test_all_are_those_with_a_limit_or_an_override(run: Run) -> None:
    assert run("pause", "--all").output.count("\n") == 1
    run("set", "proj.free", "9/s")

    assert run("reset", "--all").output.splitlines() == [
        "proj.free: no limit as declared; before 9/s",
        "proj.task: 1/h as declared; paused until resume",
    ]


def test_history_has_the_newest_change_first_with_its_author_and_reason(run: Run) -> None:
    assert run("history", "proj.task").output == "proj.task was never overridden\n"
    run("set", "proj.task", "5/s", "--reason", "they asked")
    run("pause", "proj.task")
    lines = run("history", "proj.task").output.splitlines()

    assert ["pause" in lines[0], "set 5/s" in lines[1], "they asked" in lines[1]] == [True] * 3
    assert [change["what"] for change in json.loads(run("history", "proj.task", "--json").output)] == ["pause", "set"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("set", "proj.nobody", "5/s"), "unknown task proj.nobody: this application has proj.free, proj.task"),
        (("set", "proj.task", "soon"), "rate 'soon'"),
        (("set", "proj.task", "5/s", "--expires", "soon"), "soon"),
        (("set", "proj.task", "5/s", "--burst", "0"), "--burst"),
        (("set", "proj.task", "5/s", "--reason", "x" * (LONGEST_REASON + 1)), f"write {LONGEST_REASON} or fewer"),
        (("pause",), "name a task, or use --all"),
        (("resume", "proj.task", "--all"), "name a task, or use --all"),
        (("history", "proj.nobody"), "unknown task proj.nobody"),
    ],
)
def test_what_is_invalid_is_refused_in_words_and_changes_nothing(
    run: Run, redis_client: redis.Redis, words: tuple[str, ...], expected: str
) -> None:
    assert expected in run(*words, is_good=False).output
    assert not redis_client.exists(RECORDS)


def test_a_task_with_its_own_strategy_cannot_be_limited(app: Celery, run: Run) -> None:
    """One that had a limit before can still be reset."""
    run("set", "proj.task", "5/s")
    app.tasks["proj.task"].Strategy = "proj.strategies:own"

    assert "own Strategy" in run("set", "proj.task", "5/s", is_good=False).output
    assert "own Strategy" in run("pause", "proj.task", is_good=False).output
    assert run("pause", "--all").output == "no task has a limit\n"
    assert run("history", "proj.task").output.count("\n") == 1
    assert "own Strategy" in run("reset", "--all").output


def test_a_redis_that_is_away_is_named_without_its_password(app: Celery, run: Run) -> None:
    app.conf.global_rate_url = f"redis://:s3cret@127.0.0.1:{(port := free_port())}/0"
    said = run("set", "proj.task", "5/s", is_good=False).output

    assert f"127.0.0.1:{port}/0 (ConnectionError" in said
    assert "s3cret" not in said


def test_a_setting_that_is_invalid_is_named(app: Celery, run: Run) -> None:
    app.conf.global_rate_max_held = -1

    assert "global_rate_max_held = -1" in run("show", is_good=False).output
