"""From held request to pool: what to reserve, when to release. No Redis and no Celery in here, and no clock."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from .bucket import HORIZON_S, Bucket, Call
from .clock import RedisClock
from .limit import Limit
from .pace import Pace
from .reservation import Reservation

#: How often a full pool is looked at, in seconds. The end of a task says so at once, the loss of a process does not.
FULL_POOL_POLL_S = 0.05


class Pool(Protocol):
    """What the scheduler knows of the pool."""

    @property
    def processes(self) -> int:
        """Tasks that can run at the same time."""

    @property
    def free(self) -> int:
        """Processes without a task; negative by the number of tasks that wait for a process."""

    @property
    def oldest_s(self) -> float:
        """How long the oldest task has been running, in seconds; 0 where none is."""

    def start(self, request: Any) -> None:
        """Hand a request over."""

    def is_gone(self, request: Any) -> bool:
        """Whether a request must not run any more (revoked, expired). Answers and acknowledges it then."""


class Limiter(Protocol):
    """What the scheduler knows of the limiter. Neither verb waits."""

    clock: RedisClock

    def reserve(self, name: str, limit: Limit, wanted: int, reply: Callable[[Reservation | None], None]) -> None:
        """Ask for up to `wanted` slots; `reply` is called once, with None where there was no answer."""

    def give_back(self, name: str, reservation: Reservation) -> None:
        """Return what is left of a reservation."""


class Scheduler:
    """Holds requests until their slot is due and a process is free.

    Args:
        pool: where released requests go.
        limiter: where slots come from.
        wake: asks for a call of `pump` at a monotonic instant; the earliest one that was asked for counts.
        monotonic: the clock, in seconds.
        chance: draws uniformly from [0, 1).

    Attributes:
        pace: what the pool can do; to be told of every run time.
        missed: slots that were reserved and came too late to be used, since the start.
    """

    def __init__(
        self,
        pool: Pool,
        limiter: Limiter,
        wake: Callable[[float], None],
        monotonic: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.pace = Pace()
        self.missed = 0
        self._pool = pool
        self._limiter = limiter
        self._wake = wake
        self._monotonic = monotonic
        self._chance = chance
        self._busy: dict[str, Bucket] = {}
        self._pumping = False

    @property
    def held(self) -> int:
        """Requests held in all buckets."""
        return sum(len(bucket.held) for bucket in self._busy.values())

    def hold(self, bucket: Bucket, request: Any) -> None:
        """Take a request in. It is released at once where its bucket has no limit."""
        now = self._monotonic()
        bucket.hold(request, now)
        is_expected = bucket.name in self._busy and (bucket.call is not None or now < bucket.ask_at)
        self._busy[bucket.name] = bucket
        if bucket.limit is None or not is_expected:
            self.pump()

    def configure(self, bucket: Bucket, limit: Limit | None) -> None:
        """Put another limit in force: held requests follow it, and start at once where it is None."""
        if limit == bucket.limit:
            return
        self._empty_hand(bucket)
        bucket.limit = limit
        bucket.ask_at = self._monotonic()
        self.pump()

    def clear(self) -> None:
        """Forget all held requests, which the broker delivers anew, and give their slots back."""
        for bucket in self._busy.values():
            bucket.held.clear()
            self._empty_hand(bucket)
        self._busy.clear()

    def pump(self) -> None:
        """Do all that is due now, and ask to be woken for what comes next."""
        if self._pumping:  # a pool may run a task, or switch to another greenlet, inside start()
            return
        self._pumping = True
        try:
            longest_wait_first = list(self._busy.values())
            if len(longest_wait_first) > 1:
                longest_wait_first.sort(key=lambda bucket: bucket.waiting_since)
            for bucket in longest_wait_first:
                self._release(bucket)
            wake_at = min((self._serve(bucket) for bucket in longest_wait_first), default=None)
            for bucket in longest_wait_first:
                if bucket.is_idle:
                    self._busy.pop(bucket.name, None)
        finally:
            self._pumping = False
        if wake_at is not None and self._busy:
            self._wake(wake_at)

    def _release(self, bucket: Bucket) -> None:
        """Start what is due and fits into the pool; what came too late to start is missed."""
        if bucket.limit is None:
            while self._is_wanted(bucket):
                self._pool.start(bucket.held.popleft())
            return
        clock, grace_s = self._limiter.clock, bucket.limit.grace_s
        while (reservation := bucket.reservation) is not None:
            if not self._is_wanted(bucket):
                self._empty_hand(bucket)
                return
            # Anew for each, and after all that may take long: this worker may have been stopped as well.
            now = self._monotonic()
            due_us = reservation.due_us
            early_s = clock.reached(due_us) - now
            # A slot that a full bucket had saved was due when it was reserved: its lateness counts from then.
            late_s = now - clock.reached(max(due_us, reservation.now_us))
            if late_s > grace_s or early_s > 2 * HORIZON_S:  # so early only on a clock that has stepped back since
                is_over = now > clock.reached(max(reservation.end_us, reservation.now_us)) + grace_s
                missed = reservation.left if is_over else 1
                reservation.used += missed
                self.missed += missed
                bucket.missed(now)
            elif early_s > 0 or not self._has_room(bucket.has_spare or late_s > grace_s / 25):
                return
            else:
                reservation.used += 1
                self._pool.start(bucket.held.popleft())

    def _is_wanted(self, bucket: Bucket) -> bool:
        """Whether the next held request still wants to run; those before it that do not are forgotten."""
        while bucket.held:
            if not self._pool.is_gone(bucket.held[0]):
                return True
            bucket.held.popleft()
        return False

    def _has_room(self, is_pressed: bool) -> bool:
        """Whether a process is free, or one may have a task on deck: where the pool is what holds us up."""
        free = self._pool.free
        if free > 0:
            return True
        return is_pressed and -free < self._pool.processes and self.pace.is_quick(self._pool.oldest_s)

    def _serve(self, bucket: Bucket) -> float:
        """Ask for slots if it is time to; returns the monotonic instant of what comes next for this bucket."""
        now = self._monotonic()
        if bucket.call is not None and now > bucket.call.expires:
            bucket.call = None
            bucket.unanswered(now, self._chance())
        if bucket.call is None and now >= bucket.ask_at:
            self._ask(bucket, now)
        at = now + FULL_POOL_POLL_S
        if bucket.call is not None:
            at = bucket.call.expires
        elif now < bucket.ask_at:
            at = bucket.ask_at
        reservation = bucket.reservation
        if reservation is not None:
            due = self._limiter.clock.reached(reservation.due_us)
            at = min(at, due if now < due else now + FULL_POOL_POLL_S)
        return at

    def _ask(self, bucket: Bucket, now: float) -> None:
        if bucket.limit is None:
            return
        unprovided = len(bucket.held) - bucket.in_hand
        # Slots that lie ready at once are good for the grace, not for the horizon.
        within_s = bucket.limit.grace_s if bucket.has_spare else HORIZON_S
        wanted = min(unprovided, self._capacity(within_s)) if unprovided else 0
        if wanted <= 0:
            return
        wanted = bucket.drop_gone(self._pool.is_gone, wanted)
        if not wanted:
            return
        call = bucket.call = Call(wanted, now)
        bucket.asked_at = now
        self._limiter.reserve(bucket.name, bucket.limit, wanted, partial(self._reply, bucket, call))

    def _capacity(self, within_s: float) -> int:
        """Slots the pool could use in this time, less those in hand or asked for: one rule over all buckets."""
        committed = sum(bucket.committed for bucket in self._busy.values())
        pool = self._pool
        return pool.free + self.pace.starts(pool.processes, pool.oldest_s, within_s) - committed

    def _reply(self, bucket: Bucket, call: Call, reservation: Reservation | None) -> None:
        now = self._monotonic()
        # Late where this worker was stopped between sending and reading; otherwise given up, or the limit has changed.
        if now > call.expires or bucket.call is not call:
            if reservation is not None:
                self._give_back(bucket, reservation)
            reservation = None
        if bucket.call is not call:
            return
        bucket.call = None
        if reservation is None:
            bucket.unanswered(now, self._chance())
        else:
            bucket.granted(reservation, call, self._limiter.clock, now, self._chance())
        self.pump()

    def _empty_hand(self, bucket: Bucket) -> None:
        for reservation in bucket.empty_hand():
            self._give_back(bucket, reservation)

    def _give_back(self, bucket: Bucket, reservation: Reservation) -> None:
        if reservation.left:
            self._limiter.give_back(bucket.name, reservation)
