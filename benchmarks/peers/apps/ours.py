"""This project: the limit that is meant, for the cluster."""

from lab import LIMITER, app, work

from celery_global_rate import GlobalRateLimit

app.conf.global_rate_url = LIMITER
app.steps["consumer"].add(GlobalRateLimit)


@app.task(name="lab.limited", rate_limit="100/s")
def limited(number: int) -> None:
    work(number)
