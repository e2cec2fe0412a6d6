"""A plugin of pytest: writes into a file, line by line, which test begins and how it ended.

`GLOBAL_RATE_SUITE_EVENTS` names the file. It shows which test hangs.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

#: The worst outcome of its parts is that of a test.
ORDER = ("passed", "skipped", "xfailed", "error", "failed")


def write(**event: Any) -> None:
    """Append a line to it."""
    with open(os.environ["GLOBAL_RATE_SUITE_EVENTS"], "a") as file:
        file.write(json.dumps(event) + "\n")


class Watch:
    """Sees the tests of a session."""

    def __init__(self) -> None:
        self._outcome, self._reason = "passed", ""
        self._begin = 0.0

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._outcome, self._reason = "passed", ""
        self._begin = time.monotonic()
        write(begin=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome: str = report.outcome
        if outcome == "skipped" and hasattr(report, "wasxfail"):
            outcome = "xfailed"
        elif outcome == "failed" and report.when != "call":
            outcome = "error"
        if ORDER.index(outcome) > ORDER.index(self._outcome):
            lines = report.longreprtext.strip().splitlines()
            raised = [line for line in lines if line.startswith("E ")]
            self._outcome, self._reason = outcome, (raised or lines or [""])[0 if raised else -1].lstrip("E ")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        took_s = time.monotonic() - self._begin
        write(end=nodeid, outcome=self._outcome, reason=self._reason, took_s=took_s)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Watch())


@pytest.fixture(scope="session", autouse=True)
def worker_for_all(request: pytest.FixtureRequest) -> None:
    """The session's worker is there from the beginning: some tests count on those before them to have started it."""
    if any("celery_session_worker" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("celery_session_worker")
