"""How often a worker writes to Redis: its calls are bounded, however many limits it has."""

from __future__ import annotations

#: From one write to the next on average, in seconds, if several lanes ask: they ask together. Shorter than the grace:
#: slots that lie ready are renewed in time.
PAUSE_S = 0.018
#: After a rest, so many more may go out at once.
SAVED = 5
#: The most calls in one write: the loop stands still while their answers are read.
MOST_CALLS = 64


class Pace:
    """When the next write may go out.

    Args:
        pause_s: from one write to the next on average, in seconds.

    Attributes:
        at: from this monotonic instant on.
    """

    def __init__(self, pause_s: float = PAUSE_S) -> None:
        self._pause_s = pause_s
        self.at = float("-inf")

    def wrote(self, now: float) -> None:
        """One has gone out (monotonic seconds)."""
        self.at = max(self.at, now - SAVED * self._pause_s) + self._pause_s
