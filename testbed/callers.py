"""Processes that call a limiter, in threads or in tasks of asyncio, and what they have recorded.

``python -m testbed.callers SETUP`` is one of them: it says when it is ready, begins with the first line that it reads,
and prints what it has recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from celery_global_rate import AsyncRateLimiter, RateLimiter
from celery_global_rate.client.waiter import TaskWaiter, ThreadWaiter, Waiter

from .server import root

#: When each call had its slot, and when its caller went on: monotonic seconds, which all processes share.
granted: dict[Waiter, float] = {}
released: list[float] = []
returned: list[float] = []
delays_s: list[float] = []


def _grant(waiter: Waiter, original: Any = Waiter.grant) -> None:
    granted[waiter] = time.monotonic()
    original(waiter)


def _went_on(waiter: Waiter) -> None:
    if waiter.error is None:
        now, at = time.monotonic(), granted.pop(waiter)
        released.append(at)
        returned.append(now)
        delays_s.append(now - at)


def _wait(waiter: ThreadWaiter, original: Any = ThreadWaiter.wait) -> None:
    original(waiter)
    _went_on(waiter)


async def _wait_in_task(*args: Any, original: Any = AsyncRateLimiter._wait, **kwargs: Any) -> TaskWaiter:
    waiter: TaskWaiter = await original(*args, **kwargs)
    _went_on(waiter)
    return waiter


def _in_threads(limiter: RateLimiter, count: int, end: float) -> None:
    def call() -> None:
        while time.monotonic() < end:
            limiter.acquire()

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def _in_tasks(limiter: AsyncRateLimiter, count: int, end: float) -> None:
    async def call() -> None:
        while time.monotonic() < end:
            await limiter.acquire()

    await asyncio.gather(*(call() for _ in range(count)))


def main(setup: dict[str, Any]) -> None:
    """Call a limiter for some seconds."""
    kind = AsyncRateLimiter if setup["tasks"] else RateLimiter
    limiter: Any = kind(setup["url"], setup["name"], setup["rate"], prefix=setup["prefix"])
    RateLimiter(setup["url"], "ready", "1/s", prefix=setup["prefix"]).try_acquire()  # connected
    for owner, name, noted in (
        (Waiter, "grant", _grant),
        (ThreadWaiter, "wait", _wait),
        (AsyncRateLimiter, "_wait", _wait_in_task),
    ):
        setattr(owner, name, noted)
    print("ready", flush=True)
    sys.stdin.readline()
    begin, end = time.process_time(), time.monotonic() + setup["seconds"]
    if setup["tasks"]:
        asyncio.run(_in_tasks(limiter, setup["tasks"], end))
    else:
        _in_threads(limiter, setup["threads"], end)
    _, engine = limiter._here()
    found = {
        "released": released,
        "returned": returned,
        "delay_s": max(delays_s, default=0.0),
        "uncertainty_s": engine.clock.widest_s,
        "cpu_s": time.process_time() - begin,
    }
    print(json.dumps(found), flush=True)


@dataclass
class Calls:
    """What all processes have recorded together.

    Attributes:
        released: when each call had its slot, monotonic seconds, sorted.
        returned: when its caller went on.
        delay_s: J: the longest time between the two.
        uncertainty_s: R: the widest uncertainty about the Redis clock.
        cpu_s: processor time of each process.
    """

    released: list[float]
    returned: list[float]
    delay_s: float
    uncertainty_s: float
    cpu_s: list[float]


class Callers:
    """Processes that call one limiter.

    Args:
        url: of its Redis.
        rate: of the bucket `name`.
        name: of the bucket.
        prefix: of all keys.
    """

    def __init__(self, url: str, rate: Any, name: str = "shared", prefix: str = "callers") -> None:
        self._setup = {"url": url, "rate": rate, "name": name, "prefix": prefix}
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def start(self, seconds: float, processes: int, threads: int = 0, tasks: int = 0) -> None:
        """Start processes that are to call for so long, and wait until all of them are ready."""
        setup = json.dumps({**self._setup, "seconds": seconds, "threads": threads, "tasks": tasks})
        command = [sys.executable, "-m", "testbed.callers", setup]
        environment = {**os.environ, "PYTHONPATH": str(root())}
        started: Sequence[subprocess.Popen[str]] = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(processes)
        ]
        self._processes += started
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def go(self) -> float:
        """Let them begin; returns the monotonic instant."""
        begin = time.monotonic()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return begin

    def finish(self, timeout_s: float = 60) -> Calls:
        """Wait for their end, and read what they have recorded."""
        found = [json.loads(process.communicate(timeout=timeout_s)[0]) for process in self._processes]
        return Calls(
            sorted(instant for it in found for instant in it["released"]),
            sorted(instant for it in found for instant in it["returned"]),
            max(it["delay_s"] for it in found),
            max(it["uncertainty_s"] for it in found),
            [it["cpu_s"] for it in found],
        )


def best_share(run: Callable[[], float], enough: float, tries: int = 3) -> float:
    """The share of the slots that was used in a short run: of some, if it was not enough in the first.

    A machine that stands still for longer than a slot can be used costs slots. What never may be, a run asserts itself.
    """
    shares: list[float] = []
    while not shares or (len(shares) < tries and max(shares) < enough):
        shares.append(run())
    return max(shares)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
