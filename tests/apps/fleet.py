"""An application that is switched on as its environment says, or not at all: in code, by `imports`, or from outside."""

from __future__ import annotations

import os
import sys

from celery import Celery
from celery.contrib.testing.worker import start_worker

from .starts import record

CODE = os.environ.get("FLEET_CODE", "")

app = Celery("fleet", broker=f"{os.environ['FLEET_REDIS']}/0")
app.conf.update(worker_hijack_root_logger=False, task_ignore_result=True)
app.conf.task_queues = {"celery": {}, "other": {}}
if "FLEET_LIMITS" in os.environ:
    app.conf.global_rate_url = os.environ["FLEET_LIMITS"]
if "imports" in CODE:
    app.conf.imports = ("celery_global_rate.auto",)
if "lines" in CODE:
    from celery_global_rate import GlobalRateLimit

    app.steps["consumer"].add(GlobalRateLimit)


@app.task(name="fleet.send", rate_limit="10/s")
def send() -> None:
    record()


def main(way: str, hostname: str) -> None:
    """A worker without the command line, until standard input ends or a signal comes."""
    if way == "app.Worker":
        app.Worker(hostname=hostname, pool_cls="solo", without_gossip=True, without_mingle=True).start()
    else:
        with start_worker(app, perform_ping_check=False):  # Celery 5.3 gives it its own name, gen1234@...
            sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
