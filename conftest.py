"""What tests and integration tests share: figures, which the end of a run prints."""

from __future__ import annotations

from collections.abc import Callable

import pytest

#: Under this name a report carries the figures of its test, from whichever process ran it.
MEASURED = "measured"


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Notes what a test has measured; all of it is printed at the end of the run."""

    def note(line: str) -> None:
        request.node.user_properties.append((MEASURED, f"{request.node.name}: {line}"))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    calls = [report for report in reports if getattr(report, "when", None) == "call"]
    lines = [line for report in calls for name, line in report.user_properties if name == MEASURED]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(line)
