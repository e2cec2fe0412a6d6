"""The Celery application: its tasks call the API themselves, and share its budget with the gateway."""

from __future__ import annotations

import os

import httpx
from celery import Celery

from celery_global_rate import GlobalRateLimit

API_URL = os.environ.get("API_URL", "http://localhost:8000")

app = Celery("proj", broker=os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
app.steps["consumer"].add(GlobalRateLimit)
app.conf.task_ignore_result = True
#: Of workers and gateway together. The API takes 55 requests in any second: a little more, since some are on their way
#: for longer than others.
app.conf.global_rate_buckets = {"crm-api": {"rate": "50/s", "tasks": ["crm.*"], "backoff": True}}

#: Made once: what TLS needs is read then. Each process of the pool opens connections of its own.
api = httpx.Client(base_url=API_URL, timeout=10)


@app.task(name="crm.fetch", autoretry_for=(httpx.HTTPError,), retry_backoff=True)
def fetch(number: int) -> None:
    """Read a customer."""
    api.get(f"/customers/{number}").raise_for_status()
