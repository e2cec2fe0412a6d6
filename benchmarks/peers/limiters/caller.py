"""One of the processes that share a rate: its callers wait for their turn, again and again, and it says when it came.

python caller.py MODULE CALLERS    reads from when on, until when, and from when on CPU counts (monotonic seconds)
"""

from __future__ import annotations

import asyncio
import importlib
import json
import resource
import sys
import threading
import time
from inspect import iscoroutinefunction
from typing import Any


class Log:
    """When turns came, and the CPU time of this process from an instant on.

    Args:
        until: when to end, monotonic seconds.
        counts_from: from when on CPU counts, likewise.
    """

    def __init__(self, until: float, counts_from: float) -> None:
        self.turns: list[float] = []
        self._until, self._counts_from = until, counts_from
        self._before_s = 0.0

    def note(self) -> bool:
        """Note a turn; whether there is time for another one."""
        now = time.monotonic()
        if now >= self._counts_from and not self._before_s:
            self._before_s = cpu_s()
        if now < self._until:
            self.turns.append(now)
        return now < self._until

    def say(self) -> None:
        print(json.dumps({"turns": self.turns, "cpu_s": cpu_s() - self._before_s}), flush=True)


def cpu_s() -> float:
    """CPU time of this process with its threads, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def call_in_tasks(acquire: Any, log: Log, callers: int) -> None:
    async def call() -> None:
        await acquire()
        while log.note():
            await acquire()

    await asyncio.gather(*(call() for _ in range(callers)))


def call_in_threads(acquire: Any, log: Log, callers: int) -> None:
    def call() -> None:
        acquire()
        while log.note():
            acquire()

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    acquire, callers = importlib.import_module(sys.argv[1]).acquire, int(sys.argv[2])
    print("ready", flush=True)
    begin, until, counts_from = map(float, sys.stdin.readline().split())
    log = Log(until, counts_from)
    time.sleep(max(0.0, begin - time.monotonic()))
    if iscoroutinefunction(acquire):
        asyncio.run(call_in_tasks(acquire, log, callers))
    else:
        call_in_threads(acquire, log, callers)
    log.say()


if __name__ == "__main__":
    main()
