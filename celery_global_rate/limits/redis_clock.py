"""The worker's view of the Redis clock."""

from __future__ import annotations

from math import inf

#: How far two clocks may drift apart, as a share of the time that passes.
DRIFT = 200e-6
#: Instants are exact in Lua until then, the year 2255, epoch us.
LAST_US = 2**53
#: Redis cuts its clock to a microsecond, and a double near 2e15 holds a quarter of one.
ROUNDING_US = 1.5


class RedisClock:
    """An interval that holds the difference between the Redis clock and this worker's monotonic clock.

    A call that was sent at monotonic t0 and whose answer was read at t1 saw Redis' clock at some instant between
    the two, so the difference lies in [now - t1, now - t0]. Every call narrows the interval to the intersection; its
    width is about the shortest round trip. (Marzullo's interval intersection, with one source over time.)

    Attributes:
        widest_s: the widest that the interval has been after a call, in seconds: R of the worst release so far.
    """

    def __init__(self) -> None:
        self._low_us = -inf
        self._high_us = inf
        self._read = 0.0
        self.widest_s = 0.0

    @property
    def uncertainty_s(self) -> float:
        """R: the width of the interval in seconds; infinite before the first call."""
        return (self._high_us - self._low_us) / 1e6

    def observe(self, now_us: int, sent: float, read: float) -> None:
        """Learn from a call.

        Args:
            now_us: Redis' clock in the answer, epoch us.
            sent: monotonic seconds, taken before the call was sent.
            read: monotonic seconds, taken after its answer was read.
        """
        low_us, high_us = now_us - read * 1e6, now_us + ROUNDING_US - sent * 1e6
        drift_us = max(0.0, read - self._read) * DRIFT * 1e6
        narrowed = max(low_us, self._low_us - drift_us), min(high_us, self._high_us + drift_us)
        # An empty intersection means that one of the clocks was stepped: what was known before is wrong.
        self._low_us, self._high_us = narrowed if narrowed[0] <= narrowed[1] else (low_us, high_us)
        self._read = read
        self.widest_s = max(self.widest_s, self.uncertainty_s)

    def now_us(self, now: float) -> float:
        """The instant that Redis' clock has surely reached at `now` (monotonic seconds), epoch us."""
        return self._low_us + now * 1e6

    def reached(self, redis_us: float) -> float:
        """The monotonic instant, in seconds, from which Redis' clock has surely reached `redis_us` (epoch us)."""
        return (redis_us - self._low_us) / 1e6
