"""Many limited tasks beside the two of `testbed.app`, in a module that workers include, and an eye on the loop."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import bootsteps

from testbed.app import app

TICK_S = 0.005


def nothing() -> None:
    """The body of all."""


RATE = os.environ.get("GLOBAL_RATE_MANY_RATE", "100/m") or None

for number in range(int(os.environ.get("GLOBAL_RATE_MANY", "298"))):
    app.task(name=f"many.task{number:03}", rate_limit=RATE)(nothing)


class Eye(bootsteps.StartStopStep):
    """Says in `inspect stats` how late a timer of 5 ms has been, and how many timers the extension has."""

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        self.late_s: list[float] = []
        self.timers: list[int] = []
        super().__init__(consumer, **kwargs)

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        self.hub, self.before = hub, time.monotonic()
        hub.call_repeatedly(TICK_S, self.tick)

    def tick(self) -> None:
        now = time.monotonic()
        self.late_s.append(now - self.before - TICK_S)
        self.before = now
        ours = [entry for _, _, entry in self.hub.timer._queue if "celery_global_rate" in str(entry.fun.__module__)]
        self.timers.append(sum(not entry.canceled for entry in ours))

    def info(self, consumer: Any) -> dict[str, Any]:
        late_s, timers = sorted(self.late_s), self.timers
        self.late_s, self.timers = [], []
        return {"eye": {"p99_ms": 1000 * late_s[int(0.99 * len(late_s))], "timers": max(timers), "ticks": len(timers)}}


app.steps["consumer"].add(Eye)
