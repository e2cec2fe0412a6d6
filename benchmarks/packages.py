"""Packages that people use beside Celery: their tests on one set of versions, and the table in the documentation.

python -m benchmarks.packages NAME    tox calls it in the environments for packages, with the name of the environment

What it finds is kept in packages.json beside this file, and the table is written again. With more arguments for pytest
nothing is kept.
"""

from __future__ import annotations

import ast
import json
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from testbed.server import root

from .versions import Outcomes, csv_table, line, part

TESTS = root() / "tests" / "packages"
REPORT = root() / "benchmarks" / "packages.json"
TABLE = root() / "docs" / "packages.inc"


def run(name: str) -> int:
    """Run the tests in this environment, one module after the other, and keep what they say; returns an exit code."""
    report: dict[str, Any] = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    report[name] = {
        "python": platform.python_version(),
        **{package: version(package) for package in ("celery", "kombu", "redis")},
        "modules": {module.stem: tried(module) for module in modules()},
    }
    REPORT.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    TABLE.write_text("\n".join(table(report)) + "\n")
    return int(any(module["failed"] for module in report[name]["modules"].values()))


def modules() -> list[Path]:
    """The modules with tests, in the order of their names."""
    return sorted(TESTS.glob("test_*.py"))


def tried(module: Path) -> dict[str, Any]:
    """Run the tests of a module, unless this environment has not got its packages."""
    versions = {}
    for package in subject(module)[0]:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            return {"versions": {}, "passed": 0, "failed": []}
    outcomes = Outcomes()
    code = pytest.main([str(module), "-p", "no:cacheprovider"], plugins=[outcomes])
    if code and not outcomes.failed:
        outcomes.failed.append(f"pytest ended with {int(code)}")
    return {"versions": versions, "passed": outcomes.passed, "failed": outcomes.failed}


def subject(module: Path) -> tuple[tuple[str, ...], str]:
    """The packages that a module is about, and the first line of what it says: what is tried."""
    tree = ast.parse(module.read_text())
    (packages,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PACKAGES"
    )
    return packages, (ast.get_docstring(tree) or "").splitlines()[0]


def table(report: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The lines of docs/packages.inc: a line for each module, a column for each environment."""
    runs = sorted(report.values(), key=lambda run: part(run["celery"]), reverse=True)
    heads = [f"Celery {run['celery']}, redis-py {run['redis']}, Python {run['python']}" for run in runs]
    yield from csv_table(["", "what was tried", *heads])
    for module in modules():
        packages, what = subject(module)
        yield line(", ".join(packages), what, *(cell(packages, run["modules"].get(module.stem)) for run in runs))


def cell(packages: tuple[str, ...], outcome: dict[str, Any] | None) -> str:
    """Which versions work, or how many tests have failed."""
    if outcome is None:
        return "not run"
    if not outcome["versions"]:
        return "does not take this Celery"
    versions = ", ".join(outcome["versions"][package] for package in packages)
    count = outcome["passed"] + len(outcome["failed"])
    return f"{versions}: " + (f"{len(outcome['failed'])} of {count} tests failed" if outcome["failed"] else "works")


if __name__ == "__main__":
    name, *more = sys.argv[1:]
    sys.exit(pytest.main([str(TESTS), *more]) if more else run(name))
