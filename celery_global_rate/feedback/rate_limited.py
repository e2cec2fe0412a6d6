"""What a task raises if an API asks for a pause and its client has no exception for that."""

from __future__ import annotations

import math
from datetime import timedelta


class RateLimited(Exception):  # noqa: N818  (an answer, no error of ours)
    """An API asks for a pause: ``raise RateLimited(retry_after=2)``.

    Counts as an answer with status 429. It may be the cause of another exception. Its arguments are plain, so that it
    comes out of a pool or a result backend, JSON as well, as it went in.

    Args:
        retry_after: how long, in seconds or as a timedelta: more than 0.
        message: what is shown.

    Attributes:
        retry_after: seconds.

    Raises:
        TypeError, ValueError: `retry_after` is not a length of time.
    """

    def __init__(self, retry_after: float | timedelta, message: str = "the API asks for a pause") -> None:
        if isinstance(retry_after, timedelta):
            retry_after = retry_after.total_seconds()
        if isinstance(retry_after, bool) or not isinstance(retry_after, (int, float)):
            raise TypeError(
                f"RateLimited: retry_after is {retry_after!r:.80}: use seconds, such as 2.5, or a timedelta"
            )
        if not (0 < retry_after < math.inf):
            raise ValueError(f"RateLimited: retry_after is {retry_after!r:.80}: use a number of seconds above 0")
        super().__init__(retry_after, message)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.args[1]}: {self.args[0]:g} s"
