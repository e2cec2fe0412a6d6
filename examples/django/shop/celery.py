"""The project's Celery application."""

from __future__ import annotations

import os

from celery import Celery

from celery_global_rate import GlobalRateLimit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.steps["consumer"].add(GlobalRateLimit)
