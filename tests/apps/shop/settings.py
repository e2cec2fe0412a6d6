"""Settings of the project."""

from __future__ import annotations

import os

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["tests.apps.shop"]
USE_TZ = True

CELERY_BROKER_URL = f"{os.environ['FLEET_REDIS']}/0"
CELERY_TASK_IGNORE_RESULT = True
CELERY_IMPORTS = ["celery_global_rate.auto"]
CELERY_GLOBAL_RATE_URL = os.environ["FLEET_LIMITS"]
CELERY_GLOBAL_RATE_KEY_PREFIX = "global-rate:v1:fleet"
