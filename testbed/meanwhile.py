"""What goes on beside a run: something is waited for, or done repeatedly."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor


def wait(condition: Callable[[], bool], timeout_s: float, failure: Callable[[], str] = lambda: "") -> None:
    """Poll a condition until a deadline.

    Raises:
        TimeoutError: with the text of `failure`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {timeout_s} s {failure()}")
        time.sleep(0.05)


@contextlib.contextmanager
def meanwhile(action: Callable[[], object], every_s: float) -> Iterator[None]:
    """Do something repeatedly, in its own thread, with this pause before each time.

    Raises:
        Exception: what the action has raised, at the end.
    """
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(every_s):
            action()

    with ThreadPoolExecutor(1) as threads:
        repeated = threads.submit(repeat)
        try:
            yield
        finally:
            done.set()
        repeated.result()
