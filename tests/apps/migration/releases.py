"""Records what a worker releases to its pool, if it is included (``-I releases``)."""

from __future__ import annotations

import time
from typing import Any

from celery import bootsteps, current_app


class Recorder(bootsteps.Step):
    """One line for each release, monotonic seconds, just before it."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def create(self, consumer: Any) -> None:
        release = consumer.on_task_request

        def on_task_request(request: Any) -> None:
            with open("releases", "ab", buffering=0) as file:
                file.write(f"{time.monotonic():.6f}\n".encode())
            release(request)

        consumer.on_task_request = on_task_request


current_app.steps["consumer"].add(Recorder)
