"""The package `celery-heimdall`. It takes the broker's Redis; a key, or each argument would have a limit of its own."""

from celery_heimdall import HeimdallTask, RateLimit
from lab import app, work


@app.task(name="lab.limited", base=HeimdallTask, heimdall={"rate_limit": RateLimit((100, 1)), "key": "limited"})
def limited(number: int) -> None:
    work(number)
