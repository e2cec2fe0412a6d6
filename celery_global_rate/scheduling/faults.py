"""Errors of ours: each stays where it happened, is logged once with its traceback, and then once a minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

#: The first and the longest pause before something that failed is tried again, in seconds. The longest is what passes,
#: at the most, between the end of the cause and the first success.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.8
#: What has not failed for so long, in seconds, begins with the first pause again.
FORGOTTEN_S = 5.0
#: How often an error that lasts is logged, in seconds.
LOGGED_AGAIN_S = 60.0


class Retry:
    """When something that failed is tried again: soon at first, and less often each time it fails.

    Args:
        longest_s: the longest pause, in seconds; shorter than what fails is remembered for.

    Attributes:
        at: the monotonic instant from which it may be tried.
    """

    def __init__(self, longest_s: float = LONGEST_PAUSE_S) -> None:
        self._longest_s = longest_s
        self.at = self._failed_at = float("-inf")
        self._pause_s = 0.0

    def failed(self, now: float) -> None:
        """It has failed now (monotonic seconds)."""
        is_new = now - self._failed_at > FORGOTTEN_S
        self._pause_s = FIRST_PAUSE_S if is_new else min(2 * self._pause_s, self._longest_s)
        self._failed_at = now
        self.at = now + self._pause_s


@dataclass
class Record:
    """How often an error was seen since it was logged, and when it may be logged again (monotonic seconds)."""

    log_at: float
    unlogged: int = 0


class Faults:
    """Where errors of ours end.

    Args:
        passing: errors that are not ours, and go on to the caller: the broker's, which Celery has to see.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self, passing: tuple[type[BaseException], ...] = (), monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.passing = passing
        self._monotonic = monotonic
        self._records: dict[tuple[str, str, int], Record] = {}

    def guard(self, place: str, action: Callable[..., object], *args: Any) -> bool:
        """Run an action, and note its error.

        Args:
            place: what it does, as the log shall name it.
            action: with its arguments.

        Returns:
            Whether it went well.

        Raises:
            BaseException: one of those that pass.
        """
        try:
            action(*args)
        except self.passing:
            raise
        except Exception as exc:
            self.note(place, exc)
            return False
        return True

    def note(self, place: str, error: Exception, name: str = "") -> None:
        """Log an error, if it is new or a minute has passed.

        Args:
            place: what was being done.
            error: with its traceback.
            name: the task that it was done for, if any.
        """
        now = self._monotonic()
        kind, origin = type(error).__name__, _origin(error)
        known = self._records.get(origin)
        where = f"{place} of {name}" if name else place
        if known is None:
            self._records[origin] = Record(now + LOGGED_AGAIN_S)
            logger.error("global-rate: unexpected error (%s); it will be retried", where, exc_info=error)
        elif now < known.log_at:
            known.unlogged += 1
        else:
            # Without its text, which may quote what is secret; the traceback stands further up.
            logger.error("global-rate: %s (%s) again, %d times since the last line", kind, where, known.unlogged + 1)
            self._records[origin] = Record(now + LOGGED_AGAIN_S)


def _origin(error: Exception) -> tuple[str, str, int]:
    """What an error is, and the line that raised it: one cause may be met in many places."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return type(error).__name__, "", 0
    return type(error).__name__, traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
