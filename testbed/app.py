"""The application under load. Its tasks record when they start; its recorder, when the worker releases them.

Configured by one environment variable, which every process of a run inherits: see `cluster.Cluster`.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import Celery, Task, bootsteps, signals

SETUP = json.loads(os.environ.get("GLOBAL_RATE_SETUP", "{}"))

app = Celery("lab", broker=SETUP.get("broker", "memory://"), task_cls=SETUP.get("task_cls"))
app.conf.update(
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    **SETUP.get("conf", {}),
)

_files: dict[int, int] = {}


def record(kind: str, name: str, task_id: str) -> None:
    """Append one line to this process' own file: monotonic seconds, which all processes of a machine share."""
    instant = time.monotonic()
    process = os.getpid()
    if process not in _files:
        path = os.path.join(SETUP["records"], f"{process}.txt")
        _files[process] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    worker = os.environ.get("GLOBAL_RATE_WORKER", "")
    os.write(_files[process], f"{instant:.6f} {kind} {name} {task_id} {worker}\n".encode())


class Recorder(bootsteps.Step):
    """Records what the worker releases to its pool, just before it does."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def create(self, consumer: Any) -> None:
        release = consumer.on_task_request

        def on_task_request(request: Any) -> None:
            record("release", request.name, request.id)
            release(request)

        consumer.on_task_request = on_task_request


class Lifeline(bootsteps.StartStopStep):
    """Records when the worker listens for commands, and when it has disconnected from its broker."""

    requires = ("celery.worker.consumer.control:Control",)

    def start(self, consumer: Any) -> None:
        record("connected", "-", "-")

    def stop(self, consumer: Any) -> None:
        record("parted", "-", "-")


app.steps["consumer"].add(Recorder)
if SETUP.get("lifelines"):
    app.steps["consumer"].add(Lifeline)

    @signals.task_received.connect
    def on_received(request: Any, **kwargs: Any) -> None:
        record("received", request.name, request.id)


if SETUP.get("extension"):  # without it, an ordinary application
    from celery_global_rate import GlobalRateLimit

    app.steps["consumer"].add(GlobalRateLimit)


@signals.worker_ready.connect
def on_ready(sender: Any, **kwargs: Any) -> None:
    record("ready", "-", "-")


@app.task(name="limited", bind=True, rate_limit=SETUP.get("rate"))
def limited(self: Task, run_time_s: float = 0.0, error: str = "") -> None:
    record("start", self.name, self.request.id)
    if run_time_s:
        time.sleep(run_time_s)
    if error:
        raise RuntimeError(error)


if SETUP.get("burst") is not None:
    limited.rate_burst = SETUP["burst"]


@app.task(name="free", bind=True)
def free(self: Task, run_time_s: float = 0.0) -> None:
    record("start", self.name, self.request.id)
    if run_time_s:
        time.sleep(run_time_s)


@app.task(name="late", bind=True, rate_limit=SETUP.get("rate"), acks_late=True, reject_on_worker_lost=True)
def late(self: Task, run_time_s: float = 0.0) -> None:
    record("start", self.name, self.request.id)
    if run_time_s:
        time.sleep(run_time_s)
    record("end", self.name, self.request.id)
