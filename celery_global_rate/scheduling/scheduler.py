"""From held request to pool: what to reserve, when to release. No Redis and no Celery in here, and no clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from operator import le
from typing import Any

from ..limits.limit import Limit
from ..limits.reservation import Reservation, SlotSource
from ..limits.timing import HORIZON_S
from .bucket import FEW, SHORTEST_PAUSE_S, Bucket, Call
from .capacity import FULL_POOL_POLL_S, Capacity, Pool
from .faults import Faults

NOW = float("-inf")
#: The share of its usable time after which a due slot lets its task wait on deck rather than wait for a free process.
PRESSING = 0.04
#: If the limit is out of reach, this many held tasks are worth a call as soon as no slot is in hand.
WORTH_A_CALL = FEW // 2
#: What is in hand suffices if it does for this long, in seconds: about a pause between two calls.
ENOUGH_S = 0.01


class Scheduler:
    """Holds requests until their slot is due and a process is free.

    An error in the turn of one bucket stays there: the others have their turns, and this one its next after a pause.

    Args:
        pool: where released requests go.
        limiter: where slots come from.
        wake: asks for a call of `pump` at a monotonic instant; the earliest one that was asked for counts.
        cover: called with the number of held requests that need their own prefetch slot.
        monotonic: the clock, in seconds.
        chance: draws uniformly from [0, 1).
        faults: where errors end.

    Attributes:
        missed: slots that were reserved and came too late to be used, since the start.
        busy: the buckets that hold something or wait for an answer, by their names.
    """

    def __init__(
        self,
        pool: Pool,
        limiter: SlotSource,
        wake: Callable[[float], None],
        cover: Callable[[int], None],
        monotonic: Callable[[], float],
        chance: Callable[[], float],
        faults: Faults,
    ) -> None:
        self.missed = 0
        self._faults = faults
        self._pool = pool
        self._capacity = Capacity(pool, monotonic)
        self._limiter = limiter
        self._wake, self._cover = wake, cover
        self._monotonic, self._chance = monotonic, chance
        self.busy: dict[str, Bucket] = {}
        self._pumping = False
        self._serve_at = NOW

    @property
    def held(self) -> int:
        """Requests held in all buckets."""
        return sum(bucket.held_count for bucket in self.busy.values())

    @property
    def requests(self) -> list[Any]:
        """All of them."""
        return [request for bucket in self.busy.values() for request in bucket.requests]

    def hold(self, bucket: Bucket, request: Any) -> None:
        """Take a request in. It is released at once if its bucket has no limit."""
        now = self._monotonic()
        bucket.hold(request, now)
        is_expected = bucket.name in self.busy and (bucket.call is not None or now < bucket.ask_at)
        self.busy[bucket.name] = bucket
        if bucket.limit is None or not is_expected:
            self.pump()
        elif len(bucket.held) <= bucket.most_covered:
            self._cover_held()

    def configure(self, bucket: Bucket, limit: Limit | None, floor_us: int = 0) -> None:
        """Put a limit and a floor in force: held requests follow them, and start if the limit is None."""
        if (limit, floor_us) == (bucket.limit, bucket.floor_us):
            return
        self._let_go(bucket)
        bucket.limit, bucket.floor_us = limit, floor_us
        bucket.ask_at = self._monotonic()
        self.pump()

    def let_go(self) -> None:
        """Give all slots in hand back."""
        for bucket in self.busy.values():
            self._let_go(bucket)

    def clear(self) -> None:
        """Forget all held requests, which the broker redelivers, and give their slots back."""
        buckets = list(self.busy.values())
        self.busy.clear()
        for bucket in buckets:
            bucket.clear()
            self._let_go(bucket)
        self._cover_held()

    def ended(self, run_time_s: float) -> None:
        """A released task has ended, and has left its process to the next one.

        Args:
            run_time_s: how long it ran, in seconds. What is no time, because a clock was set, is not learnt from.
        """
        now = self._monotonic()
        is_time = isinstance(run_time_s, (int, float)) and 0 <= run_time_s < math.inf
        has_room = self._capacity.ended(run_time_s if is_time else None, now)
        if now >= self._serve_at:
            self.pump()
        elif has_room:
            self._pump()

    def pump(self) -> None:
        """Do all that is due now, and ask to be woken for what comes next."""
        if not self._pumping:
            self._serve_at = NOW
        self._pump()

    def _pump(self) -> None:
        """Release what is due, and serve the buckets if that is due as well."""
        if self._pumping:  # a pool may run a task inside start(), or have a process for us inside line_up()
            self._wake(self._monotonic())
            return
        self._pumping = True
        try:
            longest_wait_first = sorted(self.busy.values(), key=lambda bucket: bucket.waiting_since)
            self._capacity.is_far = all(bucket.is_far for bucket in longest_wait_first)
            for bucket in longest_wait_first:
                self._turn(bucket, "releasing tasks", self._release)
            if self._serve_at == NOW:
                self._serve_all(longest_wait_first)
        finally:
            self._pumping = False

    def _serve_all(self, longest_wait_first: list[Bucket]) -> None:
        self._serve_at = float("inf")
        turns = [self._turn(bucket, "reserving slots", self._serve) for bucket in longest_wait_first]
        self._faults.guard("lining up for the pool", self._line_up)
        for bucket in longest_wait_first:
            if bucket.is_idle:
                self.busy.pop(bucket.name, None)
        if self.busy:
            wake_at = min(turns, default=float("inf"))
            self._serve_at = min(self._serve_at, wake_at)
            self._wake(wake_at)
        self._cover_held()

    def _turn(self, bucket: Bucket, place: str, part: Callable[[Bucket], float]) -> float:
        """One part of a bucket's turn; returns the monotonic instant of the next one."""
        now = self._monotonic()
        return bucket.retry.at if now < bucket.retry.at else self._attempt(bucket, place, part)

    def _attempt(self, bucket: Bucket, place: str, part: Callable[[Bucket], float]) -> float:
        try:
            return part(bucket)
        except self._faults.passing:
            raise
        except Exception as exc:
            self._faults.note(place, exc, bucket.name)
            self._let_go(bucket)  # or what it has in hand would keep processes from the others
            bucket.retry.failed(self._monotonic())
            return bucket.retry.at

    def _line_up(self) -> None:
        if not self._capacity.is_in_line:
            self._pool.line_up(0, 0)
            return
        now, buckets = self._monotonic(), self.busy.values()
        waiting = sum(len(bucket.held) for bucket in buckets if bucket.limit)
        self._pool.line_up(*self._capacity.places(waiting, sum(self._of_use(bucket, now) for bucket in buckets)))

    def _cover_held(self) -> None:
        self._faults.guard("lending prefetch slots", self._cover, self._to_cover)

    def _release(self, bucket: Bucket) -> float:
        """Start what is due and fits into the pool; what came too late to start is missed."""
        if bucket.limit is None:
            return self._pass_on(bucket)
        clock, usable_s, room = self._limiter.clock, bucket.limit.usable_s, None
        while (room is None or room > 0) and (reservation := bucket.reservation) is not None:
            if not self._is_wanted(bucket):
                self._let_go(bucket)
                return NOW
            # Anew for each, and after all that may take long: this worker may have been stopped as well.
            now = self._monotonic()
            late_s = reservation.late_s(clock, now)
            if late_s > usable_s or late_s < -2 * HORIZON_S:  # so early only on a clock that has stepped back since
                self.missed += bucket.missed(reservation.miss(clock, now - usable_s), now)
                self._serve_at = NOW
                continue
            if late_s < 0:
                return NOW
            if room is None:
                is_pressed = bucket.has_spare or late_s >= usable_s * PRESSING
                room = self._capacity.with_deck if is_pressed else self._capacity.at_once
            if room > 0:
                room -= 1
                reservation.used += 1
                self._start(bucket)
        self._rest(bucket)
        return NOW

    def _rest(self, bucket: Bucket) -> None:
        """See when the pool is to be looked at again, and whether the bucket is to be served before."""
        if not bucket.held:
            self._serve_at = NOW  # there is nothing to cover any more
        elif not bucket.is_far:
            return
        elif bucket.reservation is None and len(bucket.held) >= WORTH_A_CALL:
            bucket.ran_dry()
            self._serve_at = NOW
        elif len(self.busy) == 1:
            self._capacity.rests(bucket.reservation is not None)

    def _pass_on(self, bucket: Bucket) -> float:
        """Start what has no limit any more, as many as there are processes: a solo pool runs them right here."""
        is_open = bucket.opens(self._limiter.clock) <= self._monotonic()
        for _ in range(self._pool.processes if is_open else 0):
            if self._is_wanted(bucket):
                self._start(bucket)
        return NOW

    def _start(self, bucket: Bucket) -> None:
        """Start the next held request. One that cannot be started is put off, so that the others can."""
        request = bucket.held.popleft()
        try:
            self._pool.start(request)
        except self._faults.passing:
            raise
        except Exception as exc:
            self._faults.note("starting a task", exc, bucket.name)
            if not self._pool.has_accepted(request):
                self.missed += 1
                bucket.put_off(request, self._monotonic())
                return
        bucket.forget(request)

    def is_gone(self, bucket: Bucket, request: Any) -> bool:
        """Whether a held request is to leave the queue: it must not run any more, or cannot be asked and is put off.

        Nothing is answered or acknowledged here; that may take long, and `Dismissals` sees to it.
        """
        try:
            is_gone = self._pool.is_gone(request)
        except Exception as exc:
            self._faults.note("looking whether a task is still wanted", exc, bucket.name)
            bucket.put_off(request, self._monotonic())
            return True
        if is_gone and bucket.leave(request):
            self._wake(self._monotonic())
            return True
        return False

    def _is_wanted(self, bucket: Bucket) -> bool:
        """Whether the next held request still wants to run; those before it that do not are forgotten."""
        while bucket.held:
            if not self.is_gone(bucket, bucket.held.first):
                return True
            bucket.held.popleft()
        return False

    def _serve(self, bucket: Bucket) -> float:
        """Ask for slots if it is time to; returns the monotonic instant of what comes next for this bucket."""
        now = self._monotonic()
        back_at = bucket.bring_back(now)
        if bucket.limit is None:
            return max(now, bucket.opens(self._limiter.clock)) if bucket.held else back_at
        if bucket.call is not None and now > bucket.call.expires:
            bucket.call = None
            bucket.unanswered(now, self._chance())
        if bucket.call is None and now >= bucket.ask_at and bucket.unprovided:
            self._ask(bucket, bucket.limit, now)
        return min(self._next_look(bucket, bucket.limit, now), back_at)

    def _next_look(self, bucket: Bucket, limit: Limit, now: float) -> float:
        """The monotonic instant at which a limited bucket has something to do, unless something happens before."""
        if bucket.call:
            at = bucket.call.expires
        elif now < bucket.ask_at:
            at = bucket.ask_at
        else:
            at = now + self._capacity.look_s
        reservation = bucket.reservation
        due_at = self._limiter.clock.reached(reservation.due_us if reservation else bucket.next_us)
        if reservation:
            pressing_at = due_at if bucket.has_spare else due_at + limit.usable_s * PRESSING
            steps = (due_at, pressing_at, now + FULL_POOL_POLL_S)
            at = min(at, next(instant for instant in steps if instant > now))
        claim_at = due_at - self._capacity.claim_s(limit)
        return min(at, claim_at) if claim_at > now else at

    def _ask(self, bucket: Bucket, limit: Limit, now: float) -> None:
        wanted = min(bucket.unprovided, self._of_use_soon(bucket, limit, now) - self._committed)
        if wanted <= 0:
            if not bucket.committed:
                self._serve_at = NOW  # when the next task ends
        elif not bucket.has_spare:  # if there are slots to spare, one too many hurts nobody
            wanted = bucket.drop_gone(partial(self.is_gone, bucket), bucket.in_hand, partial(le, wanted))
        if wanted > 0:
            call = bucket.asks(wanted, now)
            self._limiter.reserve(bucket.name, limit, wanted, partial(self._reply, bucket, call))

    def _of_use_soon(self, bucket: Bucket, limit: Limit, now: float) -> int:
        """For how many slots a process will be there in time, those in hand among them.

        A slot can be used until its grace ends, so that is when processes count, those whose task will probably end
        by then among them. How sure that must be depends on what becomes of the slot otherwise. One that lies ready is
        lost if nobody takes it now. One that lies ahead can be had later, by us or by a worker with a process for it
        then. If others wait, count on two standard deviations fewer than expected as soon as it lies a grace ahead.
        If slots come no faster than the horizon, each is asked for by itself, once a process is free.
        """
        if limit.interval_s >= HORIZON_S and not self._capacity.is_crowded:
            return self._capacity.slots(0.0)
        if 0 < bucket.committed >= self._capacity.slots(ENOUGH_S):
            return 0
        ahead_s = bucket.ahead_s(self._limiter.clock, now)
        deviations = 0.3 + (1.7 * min(1.0, ahead_s / limit.usable_s) if bucket.waiting > 1 else 0.0)
        return self._capacity.slots(ahead_s + limit.usable_s, deviations)

    @property
    def _to_cover(self) -> int:
        return sum([min(bucket.held_count, bucket.most_covered) for bucket in self.busy.values()])

    @property
    def _committed(self) -> int:
        """Slots in hand or asked for, of all buckets."""
        return sum(bucket.committed for bucket in self.busy.values())

    def _of_use(self, bucket: Bucket, now: float) -> int:
        """Processes that a bucket could use in a moment: for slots that are due by the time that one comes.

        If slots lie ready, it could use one for each slot in hand, and for each request that is about to ask for one.
        """
        if bucket.limit is None:
            return 0
        if bucket.has_spare:
            is_asking = bucket.call is None and bucket.ask_at <= now + SHORTEST_PAUSE_S
            return bucket.committed + (bucket.unprovided if is_asking else 0)
        by_us = self._limiter.clock.now_us(now + self._capacity.claim_s(bucket.limit))
        if bucket.in_hand:
            return sum(reservation.due_by(by_us) for reservation in bucket.reservations)
        return int(bucket.call is None and bucket.unprovided > 0 and 0 < bucket.next_us <= by_us)

    def _reply(self, bucket: Bucket, call: Call, reservation: Reservation | None) -> None:
        now = self._monotonic()
        # Late if this worker was stopped between sending and reading; otherwise given up, or the limit has changed.
        if now > call.expires or bucket.call is not call:
            if reservation is not None and reservation.count:
                self._faults.guard("giving slots back", self._limiter.give_back, bucket.name, reservation)
            reservation = None
        if bucket.call is not call:
            return
        bucket.call = None
        self._attempt(bucket, "taking slots", partial(self._take, call=call, reservation=reservation))
        self.pump()

    def _take(self, bucket: Bucket, call: Call, reservation: Reservation | None) -> float:
        now = self._monotonic()
        if reservation is None:
            bucket.unanswered(now, self._chance())
        elif reservation.override:
            bucket.ask_at = now  # it is known now, and the limit is the same
        else:
            bucket.granted(reservation, call, self._limiter.clock, now, self._chance())
        return bucket.ask_at

    def _let_go(self, bucket: Bucket) -> None:
        for reservation in bucket.let_go():
            self._faults.guard("giving slots back", self._limiter.give_back, bucket.name, reservation)
