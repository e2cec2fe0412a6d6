"""The Django project: its tasks and its view on one bucket of 20/s."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.windows import used

from ..conftest import Figures, Server
from .api import Api
from .example import Example

pytestmark = pytest.mark.slow


def test_tasks_and_views_share_a_budget(tmp_path: Path, empty_redis: Server, api: Api, figures: Figures) -> None:
    """100 tasks and four visitors who always ask again: the API gets 20 requests a second, until the tasks are done."""

    def visit(first: int) -> int:
        number = first
        while not done():
            status, _, body = project.ask("GET", f"/customers/{number}")
            assert (status, json.loads(body)["path"]) == (200, f"/customers/{number}")
            number += 1
        return number - first

    def done() -> bool:
        return sum(instant > 0 for instant, _, path in list(api.calls) if int(path.rpartition("/")[2]) < 100) >= 100

    with Example("django", tmp_path, empty_redis, api) as project:
        project.start_workers(2, "shop", "-c", "2")
        project.start_server("web", "manage", "runserver", "--noreload", str(project.port))
        status, _, body = project.ask("POST", "/import")
        with ThreadPoolExecutor(4) as visitors:
            visits = sum(visitors.map(visit, range(1000, 5000, 1000)))
    instants = api.instants()
    share = used(instants, 0.05, instants[0] + 1, instants[-1])
    figures(f"{share:.4f} of 20/s: 100 tasks and {visits} visits in {instants[-1] - instants[0]:.2f} s")

    assert (status, json.loads(body)) == (202, {"queued": 100})
    assert len(instants) == 100 + visits
    assert 0.99 <= share <= 1.01
    assert visits >= 20


def test_a_visitor_is_told_when_to_come_again(tmp_path: Path, empty_redis: Server, api: Api, figures: Figures) -> None:
    """With an operator's 1/m the first slot is free, and the next one a minute away: no visitor waits for that."""
    with Example("django", tmp_path, empty_redis, api) as project:
        project.start_workers(1, "shop", "-c", "1")
        project.run("-m", "celery", "-A", "shop", "global-rate", "set", "crm-api", "1/m")
        project.start_server("web", "manage", "runserver", "--noreload", str(project.port))
        first, _, _ = project.ask("GET", "/customers/1")
        begin = time.monotonic()
        second, headers, body = project.ask("GET", "/customers/2")
        took_s = time.monotonic() - begin
    figures(f"refused in {took_s * 1000:.0f} ms, Retry-After {headers['Retry-After']}")

    assert (first, second) == (200, 429)
    assert json.loads(body) == {"error": "too many requests"}
    assert 50 <= int(headers["Retry-After"]) <= 60
    assert took_s < 1
    assert len(api.calls) == 1
