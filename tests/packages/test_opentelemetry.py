"""Each run of a limited task is a span, and a failed one says so."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("opentelemetry.instrumentation.celery", reason="make packages installs it")

from ..conftest import Figures, Server
from .load import observed

PACKAGES = ("opentelemetry-instrumentation-celery", "opentelemetry-sdk")


def test_each_run_is_a_span(empty_redis: Server, figures: Figures) -> None:
    """30 tasks that succeed and 30 that fail, at 20/s: 60 spans, of which 30 have an error."""
    spans = observed(empty_redis, figures, "telemetry", 60)

    assert Counter((span["name"], span["status"]["status_code"]) for span in spans) == {
        ("run/limited", "UNSET"): 30,
        ("run/limited", "ERROR"): 30,
    }
