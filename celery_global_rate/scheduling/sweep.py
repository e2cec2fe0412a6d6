"""Held requests that were revoked or have expired: dropped soon, even if none is about to start."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any

from .lane import Lane

#: From the end of a sweep to the next one, in seconds.
SWEEP_S = 0.5
#: How long a part of it takes, and how long it then leaves the loop to others, in seconds.
SLICE_S = 0.004
#: So many requests of a lane are looked at together first, which takes a fraction of a millisecond.
TOGETHER = 500


class Sweep:
    """Looks at all that is held, in slices, and has dropped what must not run any more.

    To drop a request takes a round trip or two, because it is acknowledged and its result is stored.

    Args:
        busy: the lanes that hold something.
        is_gone: whether a request of a lane is to leave its queue.
        may_be_gone: whether one of several may have to. Where none may, which is the rule, they are not asked one by
            one.
        monotonic: the clock, in seconds.
    """

    def __init__(
        self,
        busy: Callable[[], Iterable[Lane]],
        is_gone: Callable[[Lane, Any], bool],
        may_be_gone: Callable[[Iterable[Any]], bool],
        monotonic: Callable[[], float],
    ) -> None:
        self._busy = busy
        self._is_gone = is_gone
        self._may_be_gone = may_be_gone
        self._monotonic = monotonic
        self._at = float("-inf")
        self._left: deque[Lane] = deque()
        self._seen = 0

    def keep_up(self, now: float) -> float:
        """Sweep on, if it is time to; returns when the next slice is due (monotonic s), or infinity."""
        if now < self._at:
            return self._at
        if not self._left:
            self._left.extend(self._busy())
        if not self._left:
            return float("inf")
        end = now + SLICE_S
        while self._left and self._monotonic() < end:
            lane, seen, self._seen = self._left.popleft(), self._seen, 0
            # What was released since the last slice lets as many slip through, to be seen half a second later.
            if self._may_be_gone(islice(lane.held, seen, seen + TOGETHER)):
                is_gone = partial(self._is_gone, lane)
                seen += lane.drop_gone(is_gone, seen, lambda alive: self._monotonic() >= end)
            else:
                seen += TOGETHER
            if seen < len(lane.held):
                self._left.appendleft(lane)
                self._seen = seen
        self._at = self._monotonic() + (SLICE_S if self._left else SWEEP_S)
        return self._at
