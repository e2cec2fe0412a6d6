"""Two tasks that share the budget of one API, on as many workers as you like."""

from __future__ import annotations

import json
import os
from urllib.error import URLError
from urllib.request import Request, urlopen

from celery import Celery

from celery_global_rate import GlobalRateLimit

API_URL = os.environ.get("API_URL", "http://localhost:8000")

app = Celery("proj", broker=os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
app.steps["consumer"].add(GlobalRateLimit)
app.conf.task_ignore_result = True
#: The API takes 20 requests a second from us, whoever sends them.
app.conf.global_rate_buckets = {"crm-api": {"rate": "20/s", "tasks": ["crm.*"], "backoff": True}}


@app.task(name="crm.fetch", autoretry_for=(URLError,), retry_backoff=True)
def fetch(number: int) -> None:
    """Read a customer."""
    with urlopen(f"{API_URL}/customers/{number}", timeout=10) as answer:
        print("fetched", json.load(answer))


@app.task(name="crm.push", autoretry_for=(URLError,), retry_backoff=True)
def push(number: int, name: str) -> None:
    """Change a customer."""
    body = json.dumps({"name": name}).encode()
    urlopen(Request(f"{API_URL}/customers/{number}", body, method="PUT"), timeout=10).close()
