"""The API that the examples of the page on migration send requests to: it records when each one came."""

from __future__ import annotations

import time


def post(number: int) -> None:
    """A request: one line, monotonic seconds and the number."""
    with open("posts", "ab", buffering=0) as file:
        file.write(f"{time.monotonic():.6f} {number}\n".encode())
