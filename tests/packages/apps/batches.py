"""A task of celery-batches beside the limited one. To be included beside `testbed.app`."""

from __future__ import annotations

from typing import Any

from celery_batches import Batches

from testbed.app import app, record


@app.task(name="batch", base=Batches, flush_every=10, flush_interval=1, rate_limit="1/h")
def batch(requests: list[Any]) -> None:
    for request in requests:
        record("start", "batch", request.id)
