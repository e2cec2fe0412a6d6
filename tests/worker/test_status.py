"""What a worker logs at its start about what operators have set."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest

from celery_global_rate.limits.limit import Limit, Limits
from celery_global_rate.limits.override import Override, set_limits
from celery_global_rate.worker.status import announce

NOW_US = 1_800_000_000_000_000
PER_S, DAYS, DAYS_FROM_9 = Limit(1_000_000), Limit.in_windows("9/d"), Limit.in_windows("9/d", "9h")


@pytest.mark.parametrize(
    ("declared", "ordered", "line"),
    [
        (
            (PER_S, DAYS),
            (PER_S, DAYS_FROM_9),
            "crm-api declares 1/s and 9/d fixed, and as set was set for it: another window, which has no effect until "
            "`celery global-rate set crm-api` or `reset` writes another override",
        ),
        (
            (PER_S, DAYS),
            (DAYS,),
            "crm-api declares 1/s and 9/d fixed, and as set was set for it: another number of limits, which has no "
            "effect until `celery global-rate set crm-api` or `reset` writes another override",
        ),
        ((PER_S, DAYS), (PER_S, DAYS), "crm-api is limited to as set by me 0 s ago"),
    ],
)
def test_an_order_that_a_deploy_has_made_void_is_a_warning(
    caplog: pytest.LogCaptureFixture, declared: Limits, ordered: Limits, line: str
) -> None:
    limit = set_limits(ordered, "as set", declared)["limit"] | {"when": str(NOW_US), "by": "me"}
    override = Override.parse(f"1:a:0:{json.dumps({'what': 'set', 'when': str(NOW_US), 'limit': limit})}")
    caplog.set_level(logging.INFO)

    announce({"crm-api": declared}, ["crm-api"], set(), SimpleNamespace(get=lambda name: override), NOW_US)

    assert [record.getMessage() for record in caplog.records] == [f"global-rate: {line}"]
