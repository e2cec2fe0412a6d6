"""Celery's own `rate_limit`: each of four workers has one, so a quarter of the limit is for each."""

from lab import app, work


@app.task(name="lab.limited", rate_limit="25/s")
def limited(number: int) -> None:
    work(number)
