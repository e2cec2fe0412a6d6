"""A result backend that takes its time while a file says so, and a record of each task that was revoked or has expired.

To be included beside `testbed.app`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import signals
from celery.backends.redis import RedisBackend

from testbed.app import record

#: Holds the number of seconds that the backend takes for each call.
FILE = Path(os.environ.get("GLOBAL_RATE_SLOW", os.devnull))


class Slow(RedisBackend):
    def set(self, key: str, value: object, **retry_policy: Any) -> Any:
        time.sleep(float(FILE.read_text() or 0))
        return super().set(key, value, **retry_policy)


@signals.task_revoked.connect(weak=False)
def on_revoked(request: Any, **kwargs: Any) -> None:
    record("revoked", request.task, request.id)
