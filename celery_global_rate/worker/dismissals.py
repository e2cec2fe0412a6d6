"""Held requests that must not run any more: Celery stores their state and acknowledges them, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..scheduling.faults import FORGOTTEN_S, Faults, Retry
from ..scheduling.lane import Lane, Leaving

#: How long it goes on at a time, in seconds; a single request may take longer.
SLICE_S = 0.004
#: For how many times as long the loop is then free for others.
REST = 4
#: The longest pause after one has failed, in seconds. A database may take some time to find out that it is away.
LONGEST_PAUSE_S = 0.8 * FORGOTTEN_S


class Dismissals:
    """Has Celery dismiss the requests that leave their lanes.

    This needs the result backend and the broker, and blocks the loop, as it does in stock Celery. A slow backend blocks
    it for one request at a time, after which the loop is free for four times as long. One that is away is asked for one
    request at a time, after pauses that grow; a request that fails by itself comes after all others.

    Args:
        lanes: those with requests that leave them.
        dismiss: whether a request has been dismissed; else it is wanted after all.
        left: called with a request that was tried, and whether it has been dismissed.
        faults: logs errors.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self,
        lanes: Callable[[], Iterable[Lane]],
        dismiss: Callable[[Any], bool],
        left: Callable[[Lane, Leaving, bool], None],
        faults: Faults,
        monotonic: Callable[[], float],
    ) -> None:
        self._lanes, self._dismiss, self._left = lanes, dismiss, left
        self._faults, self._monotonic = faults, monotonic
        self._at = float("-inf")
        self._retry = Retry(LONGEST_PAUSE_S)

    def keep_up(self, now: float) -> float:
        """Dismiss those that are due, for a while; returns the monotonic instant of the next time, or infinity."""
        waiting = [(leaving.retry.at, lane, leaving) for lane in self._lanes() for leaving in lane.leaving]
        if waiting and now >= self._at:
            due = sorted((it for it in waiting if it[0] <= now), key=lambda it: it[0])
            begin = end = self._monotonic()
            for _, lane, leaving in due:
                is_well = self._attempt(lane, leaving)
                end = self._monotonic()
                if not is_well or end - begin >= SLICE_S:
                    break
            self._at = max(end + max(SLICE_S, REST * (end - begin)), self._retry.at)
        left = (leaving.retry.at for lane in self._lanes() for leaving in lane.leaving)
        return max(self._at, min(left, default=float("inf")))

    def _attempt(self, lane: Lane, leaving: Leaving) -> bool:
        # A result backend may raise an error of the broker's class. Errors of the broker itself are logged by kombu
        # here, and reach the loop when it reads.
        try:
            is_dismissed = self._dismiss(leaving.request)
        except Exception as exc:
            self._faults.note("storing the state of a revoked, expired or failed task", exc, lane.name)
            for retry in (leaving.retry, self._retry):
                retry.failed(self._monotonic())
            return False
        self._left(lane, leaving, is_dismissed)
        self._retry = Retry(LONGEST_PAUSE_S)
        return True
