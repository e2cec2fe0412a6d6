"""Errors and transactions of limited tasks arrive at Sentry."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("sentry_sdk", reason="make packages installs it")

from ..conftest import Figures, Server
from .load import observed

PACKAGES = ("sentry-sdk",)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_sentry_hears_of_each_task(empty_redis: Server, figures: Figures, pool: str) -> None:
    """30 tasks that succeed and 30 that fail, at 20/s: 60 transactions, and 30 errors."""
    events = observed(empty_redis, figures, "sentry", 90, pool=pool)
    transactions = [event for event in events if event.get("type") == "transaction"]
    errors = [event for event in events if "exception" in event]

    assert (len(transactions), len(errors)) == (60, 30)
    assert {event["transaction"] for event in events} == {"limited"}
    values = [event["exception"]["values"][-1] for event in errors]
    assert Counter((value["type"], value["value"]) for value in values) == {("RuntimeError", "boom"): 30}
