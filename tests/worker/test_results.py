"""Celery's own result backends, asked once."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import BackendStoreError

from celery_global_rate.worker.results import asked_once
from testbed.server import free_port


def attempts(caplog: pytest.LogCaptureFixture) -> int:
    return sum("Failed operation" in record.getMessage() for record in caplog.records)


def database_away(directory: Path) -> Any:
    """The result backend of an application whose SQLite has no directory; Celery has not looked for its tables yet."""
    pytest.importorskip("sqlalchemy")
    app = Celery("results", backend=f"db+sqlite:///{directory}/away/results.sqlite", set_as_current=False)
    app.conf.database_create_tables_at_setup = False
    return app.backend


def test_a_database_is_asked_once_and_then_again_as_celery_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery tries three times or four, and logs a traceback for each; how often for its tables, is below."""
    backend = database_away(tmp_path)
    monkeypatch.setattr("celery.backends.database.session.PREPARE_MODELS_MAX_RETRIES", 0)
    elsewhere = Thread(target=pytest.raises, args=(Exception, backend.mark_as_revoked, "1"))
    with asked_once(backend):
        with pytest.raises(Exception, match="unable to open"):
            backend.mark_as_revoked("1")
        once = attempts(caplog)
        elsewhere.start()
        elsewhere.join(10)
    of_another_thread = attempts(caplog)
    with pytest.raises(Exception):  # noqa: B017, PT011  (another one in each Celery)
        backend.mark_as_revoked("1")

    assert once == 0
    assert of_another_thread >= 3
    assert attempts(caplog) == 2 * of_another_thread


def test_the_first_look_for_tables_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Celery looks eleven times, with pauses that add up to two seconds on average: three times six seconds."""
    backend = database_away(tmp_path)
    begin = time.monotonic()
    for _ in range(3):
        with asked_once(backend), pytest.raises(Exception, match="unable to open"):
            backend.mark_as_revoked("1")
    took_s = time.monotonic() - begin
    (tmp_path / "away").mkdir()
    with asked_once(backend):
        backend.mark_as_revoked("1")

    assert took_s < 1
    assert backend.get_state("1") == "REVOKED"


def test_a_backend_that_is_always_tried_again_keeps_nobody_waiting() -> None:
    """Celery would not return before it is there again, by `result_backend_always_retry`."""
    app = Celery("results", backend=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    app.conf.result_backend_always_retry = True
    waiting = Thread(target=pytest.raises, args=(BackendStoreError, app.backend.mark_as_revoked, "1"))
    begin = time.monotonic()
    with asked_once(app.backend), pytest.raises(redis.ConnectionError):
        app.backend.mark_as_revoked("1")
    took_s = time.monotonic() - begin
    app.backend.max_retries = 6
    waiting.start()
    waiting.join(took_s)
    is_waiting = waiting.is_alive()
    waiting.join(10)

    assert took_s < 1
    assert is_waiting
