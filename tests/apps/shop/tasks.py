"""The tasks of the project."""

from __future__ import annotations

from celery import shared_task

from tests.apps.starts import record


@shared_task(name="fleet.send", rate_limit="10/s")
def send() -> None:
    record()
