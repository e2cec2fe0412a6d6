"""An application with one task, as one environment variable describes it: what operators get wrong, and right."""

from __future__ import annotations

import json
import os

from celery import Celery

SETUP = json.loads(os.environ.get("GLOBAL_RATE_BAD", "{}"))

app = Celery("proj", broker=SETUP.get("broker", "redis://localhost:6379/0"))
app.conf.update(SETUP.get("conf", {}))


@app.task(name="proj.send", **SETUP.get("options", {}))
def send() -> None:
    """Nothing."""


for _ in range(SETUP.get("lines", 0)):  # the two lines of the README, as often as the application has them
    from celery_global_rate import GlobalRateLimit

    app.steps["consumer"].add(GlobalRateLimit)
