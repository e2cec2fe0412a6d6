"""What the page "Outside a worker" says is so: its blocks are run as they stand there, on a Redis of this test."""

from __future__ import annotations

import re
import textwrap
import time
from typing import Any

import pytest
from celery import _state

from celery_global_rate import RateLimiter
from celery_global_rate.client.engine import ACTIVE_S
from testbed.server import root

from .conftest import Bench

PAGE = (root() / "docs" / "rate_limiter.rst").read_text()
URL, PREFIX = "redis://localhost:6379/0", "global-rate:v1:proj"


def blocks() -> list[str]:
    """Its code blocks, in order."""
    found = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", PAGE, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def run(bench: Bench, block: str, **names: Any) -> dict[str, Any]:
    """Run a block; the names that it leaves."""
    assert URL in block
    names = {"__name__": "page", **names}
    code = block.replace(URL, bench.url).replace(PREFIX, bench.prefix)
    code = re.sub(r"^(app = Celery.*)$", rf"\1\napp.conf.global_rate_key_prefix = {bench.prefix!r}", code, flags=re.M)
    exec(code, names)
    return names


def test_the_first_one_acquires_and_decorates(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(bench, blocks()[0])
    names["push"]("ann")

    assert capsys.readouterr().out.splitlines()[-2:] == ["call the API", "push ann"]
    assert bench.given("crm-api") in (3, 4)


def test_that_of_an_application(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
    names = run(bench, blocks()[1])

    assert isinstance(names["crm"], RateLimiter)
    assert bench.given("crm-api", "smooth:ann") == bench.given("crm-api", "fixed-d:ann") == 1


def test_that_of_asyncio(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.monotonic()
    run(bench, blocks()[2])

    assert time.monotonic() - begin >= 0.17
    assert sorted(capsys.readouterr().out.splitlines()) == [f"push {number}" for number in range(10)]


def test_that_of_who_cannot_wait(bench: Bench) -> None:
    view = run(bench, blocks()[3])["view"]

    assert view() == (200, {})
    bench.set("6/m", "crm-api")
    answers = [view() for _ in range(20)]
    assert answers[-1][0] == 429
    assert 1 <= int(answers[-1][1]["Retry-After"]) <= 10


def test_that_of_keys_and_costs(bench: Bench) -> None:
    run(bench, blocks()[4])

    assert bench.given("llm", "smooth:ann") == 1200


def test_its_numbers_are_those_of_the_code() -> None:
    assert len(blocks()) == 5
    assert f"for {ACTIVE_S:g} s after that" in PAGE
