"""A bucket that a crontab refills, which JSON cannot spell. To be included beside `testbed.app`."""

from __future__ import annotations

from celery.schedules import crontab

from testbed.app import SETUP, app

app.conf.global_rate_buckets = {
    "api": {
        "rate": {"window": crontab(minute=SETUP.get("minute", "*")), "amount": 20, "maximum": 40},
        "tasks": ["free"],
    }
}
