"""The example in one file."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.windows import used

from ..conftest import Figures, Server
from .api import Api
from .example import Example

pytestmark = pytest.mark.slow


def test_two_tasks_share_a_budget(tmp_path: Path, empty_redis: Server, api: Api, figures: Figures) -> None:
    """100 tasks of two kinds, on two workers: each runs once, and the API gets 20 requests a second."""
    with Example("plain", tmp_path, empty_redis, api) as example:
        example.start_workers(2, "proj", "-c", "2")
        example.run("-c", "from proj import fetch, push; [(fetch.delay(n), push.delay(n, 'Ann')) for n in range(50)]")
        example.wait(lambda: len(api.calls) >= 100, 30)
    instants = api.instants()
    share = used(instants, 0.05, instants[0] + 1, instants[-1])
    figures(f"100 requests in {instants[-1] - instants[0]:.2f} s, {share:.4f} of 20/s")
    calls = sorted((method, path) for _, method, path in api.calls)

    assert calls == sorted((method, f"/customers/{number}") for number in range(50) for method in ("GET", "PUT"))
    assert 0.99 <= share <= 1.01
    assert "bucket crm-api at 20/s" in example.log("worker-0")
