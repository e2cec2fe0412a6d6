"""Letting tasks of asyncio go on: those of a loop together, as each call from another thread costs a write."""

from __future__ import annotations

import contextlib
from asyncio import AbstractEventLoop
from collections.abc import Sequence

from .waiter import TaskWaiter


class Wakes:
    """The tasks that have their answer and do not know it yet, by their loop."""

    def __init__(self) -> None:
        self._ready: dict[AbstractEventLoop, list[TaskWaiter]] = {}

    def add(self, waiter: TaskWaiter) -> None:
        """This one has its answer. Called in the hub."""
        self._ready.setdefault(waiter.loop, []).append(waiter)

    def send(self) -> None:
        """Let all of them go on. Called in the hub, at the end of each turn."""
        if self._ready:
            ready, self._ready = self._ready, {}
            for loop, waiters in ready.items():
                with contextlib.suppress(RuntimeError):  # it was closed, and its tasks with it
                    loop.call_soon_threadsafe(_go_on, waiters)


def _go_on(waiters: Sequence[TaskWaiter]) -> None:
    for waiter in waiters:
        if not waiter.future.done():
            waiter.future.set_result(None)
