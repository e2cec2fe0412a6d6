"""What all applications have: the broker, a task without a limit, and the records of what has run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, signals

LIMITER = os.environ["PEERS_LIMITER"]
RUN_S = float(os.environ["PEERS_RUN_S"])

app = Celery("lab", broker=os.environ["PEERS_BROKER"])
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True


def record(kind: str, number: int) -> None:
    """One line in a file of this process."""
    with (Path(os.environ["PEERS_RECORDS"]) / str(os.getpid())).open("a") as file:
        file.write(f"{time.monotonic():.6f} {kind} {number}\n")


def work(number: int) -> None:
    """What the task does when it may: something that takes as long as a fast request."""
    record("limited", number)
    time.sleep(RUN_S)


@app.task(name="lab.free")
def free(number: int) -> None:
    record("free", number)


@signals.task_retry.connect
def retried(**kwargs: Any) -> None:
    record("retry", 0)
