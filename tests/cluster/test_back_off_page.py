"""What the page "The API answers 429" says is so: its first block is run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from celery_global_rate.feedback.longest import DEFAULT_S
from testbed.server import root

from ..conftest import Figures, Server
from .operator import IN_FORCE_S
from .test_back_off import Api
from .test_buckets_page import worker_on

PAGE = (root() / "docs" / "back_off.rst").read_text()
BAN_S = 2


def test_its_application_waits_as_its_api_asks(tmp_path: Path, empty_redis: Server, figures: Figures) -> None:
    """The first of five requests has a 429, and all tasks end well. The lines of the log are those of the page."""
    (block,) = re.findall(r"^\.\. code-block:: python\n\n((?:   .*\n|\n)+)", PAGE, re.MULTILINE)
    (tmp_path / "proj.py").write_text(textwrap.dedent(block))
    log = tmp_path / "log"

    def answer(now: float, path: str) -> tuple[int, dict[str, str]]:
        return (200, {}) if api.requests else (429, {"Retry-After": f"{BAN_S}"})

    with Api(answer) as api, worker_on(tmp_path, f"{empty_redis.url}/0") as options:
        send = f"from proj import fetch; [fetch.delay('{api.url}/') for _ in range(5)]"
        subprocess.run([sys.executable, "-c", send], check=True, timeout=60, **options)
        api.wait_for(6, 30)
    after = [it.instant - api.requests[0].instant for it in api.requests[1:]]
    figures(f"after the answer: {[round(it, 3) for it in after]}")

    assert not [it for it in after if IN_FORCE_S < it < BAN_S - 0.05]
    assert len([it for it in after if it <= IN_FORCE_S]) <= 3
    assert max(after) < BAN_S + 6
    lines = re.findall(r"^   (global-rate: crm-api: .*)$", PAGE, re.MULTILINE)
    assert len(lines) == 2
    assert all(line in log.read_text() for line in lines)


def test_true_is_an_hour() -> None:
    assert "``True`` means an hour." in PAGE
    assert DEFAULT_S == 3600
