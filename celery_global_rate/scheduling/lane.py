"""What is held for the same limits in this worker, what is reserved for it, and when to ask again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ..limits.bucket import Bucket
from ..limits.costs import Cost, Costs
from ..limits.duration import US_PER_S
from ..limits.limit import Limits
from ..limits.redis_clock import RedisClock
from ..limits.reservation import SlotsInHand
from ..limits.timing import GUARD_S, HORIZON_S, LONGEST_SLEEP_S, REPLY_TIMEOUT_S
from .faults import Retry
from .held_queue import HeldQueue, same_rank

#: Between two calls for a lane, on average. Shorter than the grace: slots that lie ready are renewed in time.
SHORTEST_PAUSE_S = 0.01
#: A limit that has had slots to spare for this long, in seconds, is far away; so few held requests are enough then.
FAR_S = 1.0
FEW = 32
#: Between two calls if the limit is far away, and the former was for many: shorter than the grace as well.
FAR_PAUSE_S = 0.02
MANY = 4
#: A slot that is due this much later, in seconds, needs no process yet: a costly one is paid for until then.
AHEAD_S = 2 * HORIZON_S
#: Limits whose next slot is far off look at these instants only, in seconds, so that they do so together.
TOGETHER_S = 0.25


@dataclass(frozen=True, eq=False)
class Call:
    """A reserve call under way: what it asked for, when (monotonic seconds), of which buckets, and how far ahead a slot
    is of use (seconds).

    Its identity is its generation.
    """

    wanted: int
    sent: float
    buckets: tuple[Bucket, ...]
    costs: Costs | None = None
    within_s: float = float("inf")

    @property
    def expires(self) -> float:
        """The instant after which its answer no longer counts."""
        return self.sent + REPLY_TIMEOUT_S


@dataclass(eq=False)
class Leaving:
    """A request that must not run any more, until Celery has dismissed it, and when that is tried (again)."""

    request: Any
    retry: Retry = field(default_factory=Retry)


class Lane:
    """Held requests in order, and the slots reserved for them.

    Args:
        name: as the log shall name it.
        buckets: those that each request needs a slot of; none to let everything pass.
        rank: of a request; the lowest starts first.
        cost_of: a request, in units of each bucket; None if each takes one of each.

    Attributes:
        cost_of: as above.
        binding: the bucket that sets the next slot, by the last answer; None if there is no bucket.
        limit: its limit.
        usable_s: how long after its slot a release may begin under each of its limits, in seconds.
        waits_at: the buckets that other lanes share.
        has_quota: whether one of them counts windows: a slot that is missed would be missing there.
        has_edges: whether these are fixed, or there are refills: no release may leave one.
        most_wanted: so many slots it may ask for at once, if a gate has let it through.
        waiting: workers that wait on it, this one among them, by the last answer.
        next_us: the next slot that was free then, on the Redis clock (epoch us).
        floor_us: before it, on the Redis clock (epoch us), nothing is released; 0 for no such time.
        is_ahead: whether the next slot in hand is far ahead, as it is of a costly request. No process waits for it.
        retry: when its turn comes again, after one that ended in an error.
        retrying: held requests that could not be asked or started, and are tried again; those before the queue.
    """

    def __init__(
        self,
        name: str,
        buckets: tuple[Bucket, ...],
        rank: Callable[[Any], int] = same_rank,
        cost_of: Callable[[Any], Cost] | None = None,
    ) -> None:
        self.name, self.cost_of = name, cost_of
        self.bind(buckets)
        self.is_ahead = False
        self.floor_us = self.next_us = 0
        self.waiting = 1
        self.held = HeldQueue(rank)
        self.retrying: list[Any] = []
        self.leaving: list[Leaving] = []
        self._kept: set[Any] = set()
        self.retry = Retry()
        self._retries: dict[Any, Retry] = {}
        #: Few at any time, and mostly none: an empty deque would take more than all else in here.
        self.reservations: list[SlotsInHand] = []
        self.call: Call | None = None
        #: Monotonic instants: when to ask next, when it last asked, and since when it waits for a slot.
        self.ask_at = self.asked_at = self.waiting_since = float("-inf")
        #: From when on a call keeps the pause on average: one may come early after a rest.
        self._paced_at = float("-inf")
        #: Whether the last answer had a slot at once: the limit is not what this worker waits for. And since when.
        self.has_spare = False
        self._spare_since = 0.0

    def bind(self, buckets: tuple[Bucket, ...]) -> None:
        """Let these buckets give out the slots from now on."""
        self.buckets = buckets
        slowest = max(buckets, key=lambda bucket: bucket.limit.interval_s, default=None)
        self.binding, self.limit = slowest, slowest.limit if slowest else None
        self.usable_s = min((bucket.limit.usable_s for bucket in buckets), default=float("inf"))
        self.waits_at = tuple(bucket for bucket in buckets if bucket.is_crossed)
        self.has_quota = any(bucket.limit.window for bucket in buckets)
        self.has_edges = any(bucket.limit.window and bucket.limit.window.has_edges for bucket in buckets)
        self.most_wanted = sys.maxsize

    @property
    def reservation(self) -> SlotsInHand | None:
        """The one whose slots come next, or None if no slot is in hand."""
        while self.reservations and not self.reservations[0].left:
            del self.reservations[0]
        return self.reservations[0] if self.reservations else None

    @property
    def in_hand(self) -> int:
        """Slots reserved and not used."""
        return sum([reservation.left for reservation in self.reservations]) if self.reservations else 0

    @property
    def limits(self) -> Limits:
        """Those that its requests pass."""
        return tuple(bucket.limit for bucket in self.buckets)

    @property
    def held_by(self) -> str:
        """The name of the task, or named bucket, whose limit holds its requests."""
        return self.binding.name if self.binding else self.name

    @property
    def held_count(self) -> int:
        """Held requests, with those put off, and those that must not run any more."""
        return len(self.held) + len(self.retrying) + len(self.leaving)

    @property
    def requests(self) -> list[Any]:
        """All of these."""
        return [*(leaving.request for leaving in self.leaving), *self.retrying, *self.held]

    @property
    def unprovided(self) -> int:
        """Held requests without a slot in hand; none of them waits for one if the lane has no limit."""
        return len(self.held) - self.in_hand if self.limit else 0

    @property
    def committed(self) -> int:
        """Slots in hand and slots asked for, but for those that are far ahead."""
        return (0 if self.is_ahead else self.in_hand) + (self.call.wanted if self.call else 0)

    @property
    def is_far(self) -> bool:
        """Whether its limit is out of reach: all that its requests wait for is the pool."""
        return self.has_spare and self.asked_at - self._spare_since > FAR_S

    @property
    def most_covered(self) -> int:
        """How many held requests need their own prefetch slot."""
        return FEW if self.is_far else sys.maxsize

    @property
    def is_idle(self) -> bool:
        """Whether it needs nobody's attention."""
        return not (self.held_count or self.in_hand or self.call)

    def opens(self, clock: RedisClock) -> float:
        """The monotonic instant from which requests may be released, limit or not."""
        return clock.reached(self.floor_us) if self.floor_us else float("-inf")

    @property
    def first_us(self) -> int:
        """The next slot in hand, on the Redis clock (epoch us); without one, the next that was free."""
        return self.reservation.due_us if self.reservation else self.next_us

    def first_after(self, redis_us: float) -> int:
        """The first slot in hand that is later than an instant (epoch us); without one in hand, the next free one."""
        for reservation in self.reservations:
            if (due := reservation.due_by(redis_us)) < reservation.left:
                return reservation.slot_us(reservation.used + due)
        return self.next_us

    @property
    def dues_us(self) -> Iterator[int]:
        """When each slot in hand is due, on the Redis clock (epoch us)."""
        for reservation in self.reservations:
            for index in range(reservation.used, reservation.count):
                yield reservation.slot_us(index)

    def most_slots(self, clock: RedisClock, now: float) -> int:
        """How many slots an answer can have at the most, by the last one: those up to the horizon, and a burst."""
        is_ready = not self.ahead_s(clock, now)
        limits = [bucket.limit for bucket in self.buckets]
        most = min(
            (limit.burst if is_ready or limit.window else 1) + int(HORIZON_S / limit.interval_s) for limit in limits
        )
        return min(most, self.most_wanted)

    def next_usable_s(self, clock: RedisClock) -> float:
        """How long after the next slot in hand a release may begin, in seconds.

        R adds to the bound of the others, but no release may leave a fixed window of Redis. Its guard has room for
        half its length of R; if R is longer, releases end so much earlier.
        """
        assert self.reservation is not None
        return self.usable_s_of(self.reservation, clock)

    def usable_s_of(self, reservation: SlotsInHand, clock: RedisClock) -> float:
        """The same for the next slot of a reservation."""
        is_in_window = self.has_edges and reservation.seq
        beyond_guard_s = max(0.0, clock.uncertainty_s - GUARD_S / 2) if is_in_window else 0.0
        return reservation.usable_s(self.usable_s) - beyond_guard_s

    def ahead_s(self, clock: RedisClock, now: float) -> float:
        """How far ahead the next slot lies that the last answer left, in seconds, up to H; 0 if it lies ready."""
        return min(max(0.0, clock.reached(self.next_us) - now), HORIZON_S)

    def enters(self, clock: RedisClock) -> float:
        """The monotonic instant from which on that slot can be reserved."""
        return clock.reached(self.next_us) - HORIZON_S

    def asks(self, wanted: int, now: float) -> Call:
        """A call for so many slots begins."""
        self.asked_at = now
        self._paced_at = max(self._paced_at, now - SHORTEST_PAUSE_S) + SHORTEST_PAUSE_S
        self.call = Call(wanted, now, self.buckets, self._costs(wanted), self._within_s(wanted, now))
        self.most_wanted = sys.maxsize
        return self.call

    def _costs(self, wanted: int) -> Costs | None:
        """What the next held requests without a slot cost."""
        if self.cost_of is None:
            return None
        in_hand = self.in_hand
        costs = map(self.cost_of, islice(self.held, in_hand, in_hand + wanted))
        return Costs(tuple(costs), self.reservations[-1].end_us if in_hand else 0)

    def _within_s(self, wanted: int, now: float) -> float:
        """How far ahead a slot is of use to one of the next held requests without a slot, in seconds."""
        return float("inf")

    def has_slot_of(self, request: Any) -> bool:
        """Whether the next slot in hand is for a request of that cost."""
        if self.cost_of is None or self.reservation is None:
            return True
        return self.reservation.cost == self.cost_of(request)

    def hold(self, request: Any, now: float) -> None:
        """Take a request in, as the last of its rank."""
        if not self.held:
            self.waiting_since = now
            if self.is_idle and now - self.asked_at > HORIZON_S:  # a rest: it may end with a burst
                self._spare_since = now
            if self.cost_of:  # the last answer was about another cost
                self.ask_at = min(self.ask_at, max(now, self._paced_at))
        self.held.append(request)

    def put_off(self, request: Any, now: float) -> None:
        """Keep a request that its own error has taken out of the queue, and try it again."""
        self._retries.setdefault(request, Retry()).failed(now)
        self.retrying.append(request)

    def bring_back(self, now: float) -> float:
        """Put those whose pause is over at the head of the queue; returns the instant of the next one."""
        if not self.retrying:
            return float("inf")
        due = [request for request in self.retrying if self._retries[request].at <= now]
        self.retrying = [request for request in self.retrying if self._retries[request].at > now]
        self.held.put_first(due)
        return min((self._retries[request].at for request in self.retrying), default=float("inf"))

    def leave(self, request: Any) -> bool:
        """Whether a request leaves the queue to be dismissed. One that was not, when it was tried, does not."""
        if request in self._kept:
            return False
        self.leaving.append(Leaving(request))
        return True

    def left(self, leaving: Leaving, is_dismissed: bool) -> None:
        """Celery was to dismiss a request: it is gone for good, or wanted after all."""
        self.leaving.remove(leaving)
        if is_dismissed:
            self.forget(leaving.request)
        else:
            self._kept.add(leaving.request)
            self.held.put_first([leaving.request])

    def forget(self, request: Any) -> None:
        """A request is held no longer."""
        if self._retries or self._kept:
            self._retries.pop(request, None)
            self._kept.discard(request)

    def clear(self) -> None:
        """All of them."""
        self.held.clear()
        self.retrying.clear()
        self._retries.clear()
        self.leaving.clear()
        self._kept.clear()

    def drop_gone(self, is_gone: Callable[[Any], bool], first: int, is_enough: Callable[[int], bool]) -> int:
        """Forget requests that are gone (revoked, expired).

        Args:
            is_gone: whether a request is one of them.
            first: how many at the head of the queue are not looked at.
            is_enough: whether so many that are not gone will do.

        Returns:
            How many were looked at that are not gone.
        """
        gone: list[Any] = []
        alive = 0
        for request in islice(self.held, first, None):
            if is_gone(request):
                gone.append(request)
            else:
                alive += 1
            if is_enough(alive):
                break
        if gone:
            self.held.remove(gone)
        return alive

    def let_go(self) -> Iterable[SlotsInHand]:
        """Let go of all slots in hand and of the call under way; returns the reservations that have slots left."""
        left = [reservation for reservation in self.reservations if reservation.left]
        self.reservations.clear()
        self.call = None
        if left:
            self.ask_at = float("-inf")  # they may be had again
        return left

    def granted(self, reservation: SlotsInHand, call: Call, clock: RedisClock, now: float, chance: float) -> None:
        """Take the answer to a call, and settle when to ask again.

        If slots come faster than the horizon, the pause is random: with a fixed one, workers would fall into step. A
        worker that got every slot it asked for is waiting for its pool, so it may ask again sooner. If they come more
        slowly, a worker asks when the next one enters the horizon, and earlier the longer it has waited: workers take
        turns.

        Args:
            reservation: the answer; its count may be 0.
            call: the call it answers.
            clock: the worker's view of Redis' clock.
            now: monotonic seconds.
            chance: uniform in [0, 1).
        """
        assert self.limit is not None
        self.waiting, self.next_us = reservation.waiting, reservation.slot_us(reservation.count)
        if reservation.binds is not None:
            self.binding = self.buckets[reservation.binds]
            self.limit = self.binding.limit
        if reservation.count:
            self.reservations.append(reservation)
            self.waiting_since = now
        if reservation.has_spare and not self.has_spare:
            self._spare_since = now
        self.has_spare = reservation.has_spare
        interval_s = self.limit.interval_s
        # Whatever the rate, the next slot is far if somebody has begun to pay a large cost.
        is_quick = interval_s < HORIZON_S and self.next_us <= reservation.now_us + AHEAD_S * US_PER_S
        if self.limit.window:  # it may have all its slots at once, or none for long, whatever the rate that it comes to
            is_quick = is_quick or self.next_us <= reservation.now_us
        if is_quick:
            if self.is_far and call.wanted >= MANY:
                self.ask_at = call.sent + FAR_PAUSE_S
            elif reservation.count == call.wanted:
                self.ask_at = self._paced_at
            else:
                self.ask_at = call.sent + HORIZON_S * (1 + chance) / 2
        else:
            turn = (now - self.waiting_since) / (interval_s * reservation.waiting)
            awake = now + LONGEST_SLEEP_S
            self.ask_at = min(self.enters(clock) + HORIZON_S / 4 * max(0.0, 1 - turn), awake - awake % TOGETHER_S)

    def missed(self, slots: int, now: float) -> int:
        """Ask again for slots that came too late; returns how many are lost: none if there are slots to spare."""
        if not self.is_far:
            self.ask_at = min(self.ask_at, max(now, self._paced_at))
        return 0 if self.has_spare else slots

    def ran_dry(self) -> None:
        """Nothing is in hand any more, and the limit is far away: there are slots for the asking."""
        self.ask_at = min(self.ask_at, self._paced_at)

    def unanswered(self, now: float, chance: float) -> None:
        """Ask again after a call without an answer, at an instant drawn so that workers do not come together."""
        self.ask_at = now + REPLY_TIMEOUT_S * chance
