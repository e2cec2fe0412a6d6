"""The package `django-celery-token-bucket`. Its refills come by the minute: 6000 of them are 100 a second."""

import os
from typing import Any

import django
from celery import schedules
from django.conf import settings
from django_celery_token_bucket.bucket import TokenBucket

if not settings.configured:
    settings.configure(
        SECRET_KEY="unused",
        USE_TZ=True,
        INSTALLED_APPS=["django_celery_token_bucket"],
        CELERY_TOKEN_BUCKETS={
            "limited": TokenBucket(name="limited", schedule=schedules.crontab(), amount=6000, maximum=6000)
        },
    )
    os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    django.setup()

from django_celery_token_bucket.decorators import rate_limit
from lab import app, work

app.autodiscover_tasks(["django_celery_token_bucket"])


@app.task(name="lab.limited", bind=True)
@rate_limit(token_bucket_name="limited", countdown=1)
def limited(self: Any, number: int) -> None:
    work(number)
