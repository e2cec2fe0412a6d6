"""The version matrix: the tests on one set of versions, and the table in the documentation that all sets make.

python -m benchmarks.versions NAME    tox calls it in each environment of tox.ini, with the name of the environment

What it finds is kept in versions.json beside this file, and the table is written again. With more arguments for pytest
nothing is kept, because a part of the tests proves a part.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest

from testbed.server import root

REPORT = root() / "benchmarks" / "versions.json"
TABLE = root() / "docs" / "versions.inc"

SELECTION = ("-m", "not slow and not long")

CELERY = ("5.3", "5.4", "5.5", "5.6", "5.7")
REDIS_PY = ("5", "6", "7", "8")

#: The redis-py that a Celery does not take for its Redis transport (`celery[redis]`), and what it takes.
REFUSES = {
    "5.3": (("6", "7", "8"), "below 6"),
    "5.4": (("6", "7", "8"), "below 6"),
    "5.5": (("6", "7", "8"), "up to 5.2.1"),
    "5.7": (("5",), "from 6.4"),
}


class Outcomes:
    """Counts tests for pytest, and remembers which failed and why others were skipped."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []
        self.skipped: dict[str, int] = defaultdict(int)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test: a skip or an error may come in the set-up, and a failure in the clean-up."""
        if report.failed:
            self.failed.append(report.nodeid)
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
            reason = reason.partition("Skipped: ")[2] or reason
            self.skipped[re.sub(r"(/\S*)/", "", reason)] += 1  # a path of this machine means nothing elsewhere
        elif report.when == "call":
            self.passed += 1


def run(name: str) -> int:
    """Run the tests in this environment and keep what they say; returns pytest's exit code."""
    outcomes, begin = Outcomes(), time.monotonic()
    code = pytest.main([*SELECTION, "-p", "no:cacheprovider"], plugins=[outcomes])
    if code and not outcomes.failed:  # nothing could be collected, or somebody has interrupted it
        outcomes.failed.append(f"pytest ended with {int(code)}")
    commit = ["git", "log", "-1", "--format=%h", "--", "celery_global_rate", "tests"]
    report: dict[str, Any] = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    report[name] = {
        "python": platform.python_version(),
        **{package: version(package) for package in ("celery", "kombu", "redis")},
        "passed": outcomes.passed,
        "skipped": outcomes.skipped,
        "failed": outcomes.failed,
        "seconds": round(time.monotonic() - begin),
        "commit": subprocess.run(commit, cwd=root(), capture_output=True, text=True, check=False).stdout.strip(),
    }
    REPORT.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    TABLE.write_text("\n".join(table(report)) + "\n")
    return int(code)


def table(report: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The lines of docs/versions.inc: Celery against redis-py, then every run."""
    runs = sorted(report.values(), key=lambda run: [part(run[name]) for name in ("celery", "redis", "python")])
    yield ".. pairs: begin\n"
    yield from csv_table(["", *(f"redis-py {column}" for column in REDIS_PY)])
    for row in CELERY:
        cells = (cell(row, column, runs) for column in REDIS_PY)
        yield line(f"**Celery {row}**", *cells)
    yield "\n.. pairs: end\n\n.. runs: begin\n"
    yield from csv_table(["Celery", "redis-py", "kombu", "Python", "passed", "failed", "skipped", "commit"])
    for run in runs:
        skipped = "; ".join(f"{count}: {reason}" for reason, count in sorted(run["skipped"].items())) or "0"
        failed = "; ".join(test.rpartition("::")[2] for test in run["failed"]) or "0"  # files may have moved since
        versions = (run[name] for name in ("celery", "redis", "kombu", "python"))
        yield line(*versions, run["passed"], failed, skipped, run["commit"])
    yield "\n.. runs: end"


def cell(celery: str, redis_py: str, runs: list[dict[str, Any]]) -> str:
    """Green on which Pythons, or why not."""
    here = [run for run in runs if minor(run["celery"]) == celery and run["redis"].split(".")[0] == redis_py]
    refused, taken = REFUSES.get(celery, ((), ""))
    words = [f"Celery {celery} takes redis-py {taken}"] if redis_py in refused else []
    for run in here:
        red = f" ({len(run['failed'])} of {run['passed'] + len(run['failed'])} failed)" if run["failed"] else ""
        words.append(f"{'red' if red else 'green'} on {minor(run['python'])}{red}")
    return ", ".join(words) or "not run"


def minor(text: str) -> str:
    """5.7 of 5.7.0."""
    return ".".join(text.split(".")[:2])


def part(text: str) -> list[int]:
    """A version, to sort by."""
    return [int(number) for number in text.split(".") if number.isdigit()]


def csv_table(header: list[str]) -> Iterator[str]:
    """The head of a table in reStructuredText."""
    yield ".. csv-table::"
    yield f"   :header: {line(*header).strip()}"
    yield ""


def line(*cells: object) -> str:
    """A line of a table."""
    return "   " + ", ".join('"' + str(cell).replace('"', '""') + '"' for cell in cells)


if __name__ == "__main__":
    name, *more = sys.argv[1:]
    sys.exit(pytest.main(more) if more else run(name))
