"""Settings of a Django project with results, and a schedule, in a database of SQLite."""

import os

SECRET_KEY = "only for tests"
USE_TZ = True
TIME_ZONE = "UTC"
INSTALLED_APPS = ["django_celery_results", "django_celery_beat"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SITE_DATABASE", ":memory:"),
        # Processes that write do not wait for the disk, nor for those that read.
        "OPTIONS": {"timeout": 20, "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
