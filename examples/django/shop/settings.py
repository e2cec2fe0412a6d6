"""Settings of the project: Django's, Celery's, and those of celery-global-rate."""

from __future__ import annotations

import os

SECRET_KEY = os.environ.get("SECRET_KEY", "only for this example")
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
INSTALLED_APPS = ["crm"]
ROOT_URLCONF = "shop.urls"

CELERY_BROKER_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
CELERY_TASK_IGNORE_RESULT = True
# The API takes 20 requests a second from us: from tasks and from views together.
CELERY_GLOBAL_RATE_BUCKETS = {"crm-api": {"rate": "20/s", "tasks": ["crm.tasks.*"], "backoff": True}}

CRM_URL = os.environ.get("API_URL", "http://localhost:8000")
