"""What the README says is so."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from celery import _state

from benchmarks.figures import BEGIN, END, PAGE, page, section
from celery_global_rate import GlobalRateLimit
from celery_global_rate.activation import check
from celery_global_rate.declared_limits import declared_limits
from celery_global_rate.limits.limit import Limit
from celery_global_rate.settings import KNOWN
from testbed.server import root

README = (root() / "README.rst").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", README, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


@pytest.fixture(scope="module")
def worker_help() -> str:
    """What `celery worker --help` prints."""
    command = [sys.executable, "-m", "celery", "worker", "--help"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_it_can_be_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 150


def test_its_table_and_the_page_of_benchmarks_are_those_of_the_report() -> None:
    """`make bench B=--draw` writes both."""
    report = json.loads((root() / "benchmarks" / "report.json").read_text())

    assert BEGIN + section(report) + END in README
    assert PAGE.read_text() == page(report)


def test_its_application_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A task goes to every application of the process that is made later; this one must not outlive the test.
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
    (block,) = blocks("python")
    path = tmp_path / "proj.py"
    path.write_text(block)
    names = runpy.run_path(str(path), run_name="proj")
    app = names["app"]
    check(app)
    (limit,) = declared_limits(app, app.tasks["proj.send"])

    assert block.startswith("# proj.py\n")
    assert GlobalRateLimit in app.steps["consumer"]
    assert limit == Limit.parse("100/m")
    assert limit is not None
    assert f"every {limit.interval_s:g} s" in README


def test_the_options_of_its_workers_exist(worker_help: str) -> None:
    lines = re.findall(r"\bcelery -A proj worker(.*)", README)
    options = {word for line in lines for word in line.split("&")[0].split() if word.startswith("-")}

    assert {"-n", "--global-rate"} <= options
    assert all(re.search(rf"(^|[\s,]){option}[\s,=]", worker_help) for option in options)


def test_our_options_are_explained_by_the_worker(worker_help: str) -> None:
    named = set(re.findall(r"--global-rate[a-z-]*", README))

    assert named == set(re.findall(r"--global-rate[a-z-]*", worker_help)) == {"--global-rate", "--global-rate-url"}
    assert "Global Rate Limit Options" in worker_help


def test_the_settings_it_names_exist() -> None:
    assert set(re.findall(r"global_rate_[a-z_]*[a-z]", README)) <= set(KNOWN)


def test_what_it_advises_for_a_ban_is_what_its_formula_gives() -> None:
    """``(N - b)/(P + D + R + J)`` with R = 10 ms and J = 5 ms, for 1000 per second and for 100 per minute."""
    for count, period_s, period, advised in ((1000, 1, "s", 960), (100, 60, "m", 98)):
        limit = Limit.parse(f"{count}/{period}")
        assert limit is not None
        safe = (count - 1) / (period_s + limit.grace_s + 0.010 + 0.005) * period_s

        assert advised == int(safe)
        assert f"``'{advised}/{period}'``" in README
