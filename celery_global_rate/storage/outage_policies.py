"""What limited tasks do while Redis is away: wait, go on at a share of their limit, or go on without one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from ..limits.bucket import Bucket
from ..limits.costs import Costs
from ..limits.limit import PS_PER_US
from ..limits.redis_clock import RedisClock
from ..limits.reservation import Reservation, SlotsInHand
from ..limits.timing import HORIZON_S

SHARE, HOLD, OPEN = "share", "hold", "open"


class WorkerCount(Protocol):
    """The workers that share the limits."""

    @property
    def most(self) -> int:
        """How many workers; 0 if it is not known."""


class Policy(Protocol):
    """A stand-in for Redis. Its slots are instants of the Redis clock, as this worker still knows it."""

    @property
    def text(self) -> str:
        """What it does, for the log."""

    def begin(self) -> None:
        """An outage begins."""

    def reserve(self, buckets: tuple[Bucket, ...], wanted: int, costs: Costs | None = None) -> Reservation | None:
        """Up to `wanted` slots of each bucket at these costs, or None if nothing may start."""

    def give_back(self, buckets: tuple[Bucket, ...], reservation: SlotsInHand) -> None:
        """Take back what is left of a reservation."""


class Hold:
    """Nothing limited starts."""

    text = "tasks with a limit are held until it is back"

    def begin(self) -> None:
        """Nothing is to be done."""

    def reserve(self, buckets: tuple[Bucket, ...], wanted: int, costs: Costs | None = None) -> None:
        """No slots."""

    def give_back(self, buckets: tuple[Bucket, ...], reservation: SlotsInHand) -> None:
        """There are none."""


class Open:
    """Everything starts.

    Args:
        clock: the worker's view of the Redis clock.
    """

    text = "tasks start without their limits until it is back"

    def __init__(self, clock: RedisClock) -> None:
        self._clock = clock

    def begin(self) -> None:
        """If Redis has never sent its time, this machine's will do for slots that are due at once."""
        if self._clock.uncertainty_s == math.inf:
            now = time.monotonic()
            self._clock.observe(int(time.time() * 1e6), now, now)

    def reserve(self, buckets: tuple[Bucket, ...], wanted: int, costs: Costs | None = None) -> Reservation:
        """All that is wanted, at once."""
        now_us = math.floor(self._clock.now_us(time.monotonic()))
        return Reservation(now_us, now_us, 0, 0, 0, wanted, 0, 1)

    def give_back(self, buckets: tuple[Bucket, ...], reservation: SlotsInHand) -> None:
        """There are always more."""


class Share:
    """Each worker goes on alone, at the limit divided by the number of workers, evenly spaced.

    N workers that are all cut off reach the limit together. The first slot of each is drawn from the interval:
    they do not start together.

    Args:
        worker_count: the workers among which the limits are divided.
        clock: the worker's view of the Redis clock.
        chance: draws uniformly from [0, 1).
    """

    def __init__(self, worker_count: WorkerCount, clock: RedisClock, chance: Callable[[], float]) -> None:
        self._worker_count = worker_count
        self._clock = clock
        self._chance = chance
        #: By the names and windows of buckets.
        self._next_us: dict[tuple[str, str], int] = {}

    @property
    def text(self) -> str:
        """What it does, for the log."""
        if not (workers := self._worker_count.most):
            return "tasks with a limit are held until it has reported how many workers share them"
        return f"this worker goes on with its share of each limit, one in {workers}"

    def begin(self) -> None:
        """Draw first slots again."""
        self._next_us.clear()

    def reserve(self, buckets: tuple[Bucket, ...], wanted: int, costs: Costs | None = None) -> Reservation | None:
        """The next slots of this worker's own, up to the horizon: those of the bucket that is slowest here.

        A start of several units is followed by as many intervals. Only those that cost the same are in one answer.
        """
        workers = self._worker_count.most
        if not workers:
            return None
        units, after_us = (1,) * len(buckets), 0
        if costs:
            units, after_us = costs.of_each[0], costs.after_us
            wanted = next((index for index, cost in enumerate(costs.of_each) if cost != units), wanted)
        intervals_ps = {it: workers * it.limit.exact_ps * count for it, count in zip(buckets, units) if count}
        interval_ps = max(intervals_ps.values(), default=0)
        now_us = math.floor(self._clock.now_us(time.monotonic()))
        nexts_us = (self._next(bucket, now_us, own_ps) for bucket, own_ps in intervals_ps.items())
        first_us = max(now_us, after_us, *nexts_us)
        free_ps = (now_us + int(HORIZON_S * 1e6) - first_us) * PS_PER_US
        free = free_ps // interval_ps + 1 if interval_ps else wanted
        granted = Reservation(
            now_us, first_us, 0, *divmod(interval_ps, PS_PER_US), min(wanted, max(0, free)), seq=0, waiting=1
        )
        if granted.count:
            for bucket, own_ps in intervals_ps.items():
                self._next_us[bucket.place] = granted.end_us - -own_ps // PS_PER_US
        return granted

    def _next(self, bucket: Bucket, now_us: int, interval_ps: int) -> int:
        """This worker's next slot of a bucket; the first one is drawn."""
        drawn_us = now_us + math.ceil(self._chance() * interval_ps / PS_PER_US)
        return self._next_us.setdefault(bucket.place, drawn_us)

    def give_back(self, buckets: tuple[Bucket, ...], reservation: SlotsInHand) -> None:
        """The next slot is the first that is left."""
        for bucket in buckets:
            next_us = self._next_us.get(bucket.place, reservation.due_us)
            self._next_us[bucket.place] = min(reservation.due_us, next_us)


#: How the policy of each name is made, of the workers that share the limits, the clock and what draws from [0, 1).
POLICIES: dict[str, Callable[[WorkerCount, RedisClock, Callable[[], float]], Policy]] = {
    SHARE: Share,
    HOLD: lambda worker_count, clock, chance: Hold(),
    OPEN: lambda worker_count, clock, chance: Open(clock),
}


def read_policy(setting: str, policy: object) -> str:
    """The name of a policy.

    Raises:
        ValueError: there is none of that name; the text says what each is.
    """
    if not isinstance(policy, str) or policy not in POLICIES:
        raise ValueError(
            f"{setting} = {policy!r:.80}: use {SHARE!r}, where each worker continues at its share of each "
            f"limit, {HOLD!r}, where nothing with a limit starts, or {OPEN!r}, where everything does"
        )
    return policy
