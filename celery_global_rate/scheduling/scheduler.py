"""From held request to pool: what to reserve, when to release. No Redis and no Celery in here, and no clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import le
from typing import Any

from ..limits.bucket import Bucket
from ..limits.duration import US_PER_S
from ..limits.reservation import SlotsInHand, SlotSource
from ..limits.timing import HORIZON_S
from .capacity import FULL_POOL_POLL_S, LOOP_S, Capacity, Pool
from .faults import Faults
from .gates import FOLLOW_S
from .lane import AHEAD_S, FEW, Call, Lane, Leaving
from .lists import Lists
from .pace import MOST_CALLS, Pace
from .room import Room

#: The share of its usable time after which a due slot lets its task wait on deck rather than wait for a free process.
PRESSING = 0.04
#: If the limit is out of reach, this many held tasks are worth a call as soon as no slot is in hand.
WORTH_A_CALL = FEW // 2
#: So many lanes that the pool has nothing for are looked at in a turn: those that follow have waited less long.
MOST_REFUSED = 8


class Scheduler:
    """Holds requests until their slot is due and a process is free.

    A turn looks at the lanes to which something has happened, those whose instant has come, those with a due slot,
    and the first of those that want slots. However many others wait, it takes no longer.

    An error in the turn of one lane stays there: the others have their turns, and this one its next after a pause.

    Args:
        pool: where released requests go.
        limiter: where slots come from.
        wake: asks for a call of `pump` at a monotonic instant; the earliest one that was asked for counts.
        cover: called with the number of held requests that need their own prefetch slot.
        monotonic: the clock, in seconds.
        chance: draws uniformly from [0, 1).
        faults: where errors end.
        loop_s: what a start takes in the worker's loop, in seconds.
        pace: how often several lanes may ask.

    Attributes:
        missed: slots that were reserved and came too late to be used, since the start.
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
        loop_s: float = LOOP_S,
        pace: Pace | None = None,
    ) -> None:
        self.missed = 0
        self._faults = faults
        self._pool = pool
        self._capacity = Capacity(pool, monotonic, loop_s)
        self._limiter = limiter
        self._wake, self._cover = wake, cover
        self._monotonic, self._chance = monotonic, chance
        self._lists = Lists()
        self._room = Room(self._capacity, self._lists, limiter.clock)
        self._pace = pace or Pace()
        #: Whether lanes may ask in this turn; else when they are looked at again, and whether the next end of a task
        #: is a reason to: one had no slot, and the pool had no room for it.
        self._is_asking = self._is_starved = False
        self._ask_at = float("inf")
        #: When a process is claimed for the next slot.
        self._claim_at = float("inf")
        #: The earliest of all instants at which something is due.
        self._next_at = float("inf")
        self._leaving: dict[Lane, None] = {}
        self._is_pumping = self._is_again = False
        #: Whether answers come together, and the turn that they call for comes after the last of them.
        self._is_gathering = False

    @property
    def busy(self) -> Collection[Lane]:
        """The lanes that hold something or wait for an answer."""
        return self._lists.busy

    @property
    def held(self) -> int:
        """Requests held in all lanes."""
        return self._lists.totals.held

    @property
    def requests(self) -> list[Any]:
        """All of them."""
        return [request for lane in self.busy for request in lane.requests]

    @property
    def leaving(self) -> list[Lane]:
        """The lanes with requests that are to be dismissed."""
        self._leaving = {lane: None for lane in self._leaving if lane.leaving}
        return list(self._leaving)

    def hold(self, lane: Lane, request: Any) -> None:
        """Take a request in. It is released at once if its lane has no limit."""
        now = self._monotonic()
        lane.hold(request, now)
        is_expected = lane in self.busy and (lane.call is not None or now < lane.ask_at or self._lists.is_in_line(lane))
        self._lists.busy[lane] = None
        if lane.limit is None or not is_expected:
            self._lists.touched[lane] = None
            self.pump()
            return
        self._lists.count_one_more(lane)
        if len(lane.held) <= lane.most_covered:
            self._cover_held()

    def refuse(self, lane: Lane, request: Any) -> None:
        """Take a request in that is to be dismissed: it waits for no slot."""
        lane.leave(request)
        self._lists.busy[lane] = self._leaving[lane] = None
        self._touch(lane)

    def configure(self, lane: Lane, buckets: tuple[Bucket, ...], floor_us: int = 0) -> None:
        """Put limits and a floor in force: held requests follow them, and start if there is no limit."""
        if (buckets, floor_us) == (lane.buckets, lane.floor_us):
            return
        now = self._monotonic()
        self._lists.gates.reopen((*lane.buckets, *buckets), now)
        self._let_go(lane)
        lane.bind(buckets)
        lane.floor_us = floor_us
        lane.ask_at = now
        if (opens := lane.opens(self._limiter.clock)) > now:  # it may be that of a task without a bucket in Redis
            lane.ask_at, lane.next_us, lane.has_spare = opens, floor_us, False
        self._lists.touched[lane] = None
        self.pump()

    def take_out(self, is_meant: Callable[[Any], bool]) -> list[Any]:
        """Take requests out of their lanes, to be held in others."""
        taken = []
        for lane in self.busy:
            if meant := [request for request in lane.held if is_meant(request)]:
                lane.held.remove(meant)
                self._lists.touched[lane] = None
                taken += meant
        return taken

    def withdraw(self, lane: Lane, requests: Collection[Any]) -> None:
        """Forget held requests of a lane. Their slots are for others that it holds, or go back."""
        lane.held.remove(requests)
        self._touch(lane)

    def ask_again(self, lanes: Iterable[Lane]) -> None:
        """Let lanes ask for slots now: what they have been told does not count any more."""
        now = self._monotonic()
        for lane in lanes:
            lane.ask_at, lane.next_us = min(lane.ask_at, now), 0
            self._lists.gates.reopen(lane.buckets, now)
            self._touch(lane)

    def let_go(self) -> None:
        """Give all slots in hand back."""
        for lane in self.busy:
            self._lists.gates.reopen(lane.buckets, self._monotonic())
            self._let_go(lane)
            self._lists.touched[lane] = None

    def clear(self) -> None:
        """Forget all held requests, which the broker redelivers, and give their slots back."""
        for lane in self._lists.clear():
            lane.clear()
            self._let_go(lane)
        self._cover_held()

    def left(self, lane: Lane, leaving: Leaving, is_dismissed: bool) -> None:
        """Celery was to dismiss a request: it is gone for good, or wanted after all."""
        lane.left(leaving, is_dismissed)
        self._touch(lane)

    def ended(self, run_time_s: float) -> None:
        """A released task has ended, and has left its process to the next one.

        Args:
            run_time_s: how long it ran, in seconds. What is no time, because a clock was set, is not learnt from.
        """
        now = self._monotonic()
        is_time = isinstance(run_time_s, (int, float)) and 0 <= run_time_s < math.inf
        has_room = self._capacity.ended(run_time_s if is_time else None, now, is_behind=bool(self._lists.ready))
        if self._is_starved or self._lists.touched or now >= self._next_at:
            self.pump()
        elif has_room:
            self._turn()

    def pump(self) -> None:
        """Do all that is due now, and ask to be woken for what comes next."""
        self._is_asking = True
        self._turn()

    @contextmanager
    def in_one_turn(self) -> Iterator[None]:
        """Whatever is answered meanwhile is looked at in one turn, at the end."""
        self._is_gathering = True
        try:
            yield
        finally:
            self._is_gathering = False
        if self._lists.touched:
            self.pump()

    def _turn(self) -> None:
        """Release what is due, and ask for slots if something calls for it."""
        if self._is_pumping:  # a pool may run a task inside start(), or have a process for us inside line_up()
            self._is_again = True
            self._wake(self._monotonic())
            return
        self._is_pumping, self._is_again = True, False
        try:
            self._look_at_all()
            if self._is_asking:
                self._ask_all()
                self._faults.guard("lining up for the pool", self._line_up)
        finally:
            self._is_pumping = False
        self._next_at = min(self._lists.agenda.next_at, self._lists.gates.next_at, self._ask_at, self._claim_at)
        if self.busy:
            self._wake(self._monotonic() if self._is_again or self._lists.touched else self._next_at)
        self._cover_held()

    def _look_at_all(self) -> None:
        """Look at each lane that may have something to do, the longest wait first."""
        has_turn = self._lists.touch_due(self._monotonic())
        self._is_asking = self._is_asking or has_turn or bool(self._lists.touched)
        self._capacity.is_far = not self._lists.totals.near
        has_room: bool | None = None  # not known
        for lane in self._lists.to_look_at:
            if lane not in self._lists.touched:
                has_room = self._has_room if has_room is None else has_room
                if not has_room:
                    continue
            self._attempt(lane, "releasing tasks", self._look)
            has_room = None

    @property
    def _has_room(self) -> bool:
        """Whether lanes that wait for a process have a reason to look; one alone costs little."""
        return self._lists.is_alone or max(self._capacity.at_once, self._capacity.with_deck) > 0

    def _attempt(self, lane: Lane, place: str, part: Callable[[Lane], object]) -> None:
        """One part of a lane's turn. After an error the lane has its next one when a pause is over."""
        try:
            part(lane)
        except self._faults.passing:
            raise
        except Exception as exc:
            self._faults.note(place, exc, lane.name)
            self._let_go(lane)  # or what it has in hand would keep processes from the others
            lane.retry.failed(self._monotonic())
            self._lists.leave_alone(lane, lane.retry.at)

    def _touch(self, lane: Lane) -> None:
        """Something has happened to a lane: look at it in the next turn, which is soon."""
        self._lists.touched[lane] = None
        self._wake(self._monotonic())

    def _look(self, lane: Lane) -> None:
        if self._monotonic() < lane.retry.at:
            self._lists.leave_alone(lane, lane.retry.at)
            return
        self._release(lane)
        self._settle(lane)
        self._lists.touched.pop(lane, None)

    def _settle(self, lane: Lane) -> None:
        """See what a lane waits for now: a process, a slot, an instant, or nothing any more."""
        now = self._monotonic()
        back_at = lane.bring_back(now)
        if lane.call is not None and now > lane.call.expires:
            lane.call = None
            lane.unanswered(now, self._chance())
        if lane.is_idle:
            self._lists.drop(lane)
            return
        if lane.limit is None:
            next_at = max(now, lane.opens(self._limiter.clock)) if lane.held else back_at
            is_ready = next_at <= now
        else:
            due_at = self._due_at(lane) if lane.reservation else None
            is_ready = due_at is not None and due_at <= now
            lane.is_ahead = due_at is not None and due_at - AHEAD_S > now
            next_at = min(self._next_look(lane, now), back_at)
        if self._lists.put(lane, now, is_ready, next_at):
            self._is_asking = True

    def _line_up(self) -> None:
        """Have places in the line for the pool if there is one, and processes kept for the slots that come next."""
        processes = self._pool.processes
        of_use, self._claim_at = self._room.of_use(self._monotonic(), processes)
        is_in_line = self._capacity.is_in_line
        self._pool.line_up(*(self._capacity.places(self._lists.totals.waiting, of_use) if is_in_line else (0, 0)))

    def _cover_held(self) -> None:
        self._faults.guard("lending prefetch slots", self._cover, self._lists.totals.covered)

    def _release(self, lane: Lane) -> None:
        """Start what is due and fits into the pool; what came too late to start is missed."""
        if lane.limit is None:
            self._pass_on(lane)
            return
        clock, room = self._limiter.clock, None
        while (room is None or room > 0) and (reservation := lane.reservation) is not None:
            if not self._is_wanted(lane) or not lane.has_slot_of(lane.held.first):
                self._let_go(lane)
                return
            # Anew for each, and after all that may take long: this worker may have been stopped as well.
            now = self._monotonic()
            late_s, usable_s = reservation.late_s(clock, now), lane.next_usable_s(clock)
            longest_s = max(reservation.ahead_s, HORIZON_S) + HORIZON_S
            if late_s > usable_s or late_s < -longest_s:  # so early only on a clock that has stepped back since
                self._miss(lane, reservation, now - usable_s)
                continue
            if late_s < 0:
                return
            if room is None:
                is_pressed = lane.has_spare or late_s >= lane.usable_s * PRESSING
                room = self._capacity.with_deck if is_pressed else self._capacity.at_once
            if room > 0:
                room -= 1
                reservation.used += 1
                self._start(lane)
        if lane.held and lane.is_far:
            self._rest(lane)

    def _miss(self, lane: Lane, reservation: SlotsInHand, before: float) -> None:
        """The next slot in hand came too late, as have all of them if the last was due before a monotonic instant."""
        missed = reservation.miss(self._limiter.clock, before)
        self.missed += lane.missed(missed, self._monotonic())
        self._is_asking = True
        if lane.has_quota and reservation.seq:
            self._faults.guard("giving slots back", self._limiter.give_back, lane.buckets, reservation.last(missed))

    def _rest(self, lane: Lane) -> None:
        """If a limit is out of reach, see when the pool is to be looked at again, or slots are asked for before."""
        if lane.reservation is None and len(lane.held) >= WORTH_A_CALL:
            lane.ran_dry()
            self._is_asking = True
        elif self._lists.is_alone:
            self._capacity.rests(lane.reservation is not None)

    def _pass_on(self, lane: Lane) -> None:
        """Start what has no limit any more, as many as there are processes: a solo pool runs them right here."""
        is_open = lane.opens(self._limiter.clock) <= self._monotonic()
        for _ in range(self._pool.processes if is_open else 0):
            if self._is_wanted(lane):
                self._start(lane)

    def _start(self, lane: Lane) -> None:
        """Start the next held request. One that cannot be started is put off, so that the others can."""
        request = lane.held.popleft()
        try:
            self._pool.start(request, partial(self._failed, lane, request))
        except self._faults.passing:
            raise
        except Exception as exc:
            if self._put_off(lane, request, exc):
                return
        lane.forget(request)

    def _put_off(self, lane: Lane, request: Any, error: Exception) -> bool:
        """Try a request again that could not be started; returns whether it has not begun nevertheless."""
        self._faults.note("starting a task", error, lane.name)
        if self._pool.has_accepted(request):
            return False
        self.missed += 1
        lane.put_off(request, self._monotonic())
        return True

    def _failed(self, lane: Lane, request: Any, error: Exception) -> None:
        """A request that had gone to the pool could not be started after all."""
        if self._put_off(lane, request, error):
            self._lists.busy[lane] = None
            self._touch(lane)

    def is_gone(self, lane: Lane, request: Any) -> bool:
        """Whether a held request is to leave the queue: it must not run any more, or cannot be asked and is put off.

        Nothing is answered or acknowledged here; that may take long, and `Dismissals` sees to it.
        """
        try:
            is_gone = self._pool.is_gone(request)
        except Exception as exc:
            self._faults.note("looking whether a task is still wanted", exc, lane.name)
            lane.put_off(request, self._monotonic())
            self._touch(lane)
            return True
        if is_gone and lane.leave(request):
            self._leaving[lane] = None
            self._touch(lane)
            return True
        return False

    def may_be_gone(self, requests: Iterable[Any]) -> bool:
        """Whether one of some held requests may have to leave its queue. If that cannot be said, each is asked."""
        try:
            return self._pool.may_be_gone(requests)
        except Exception:
            return True

    def _is_wanted(self, lane: Lane) -> bool:
        """Whether the next held request still wants to run; those before it that do not are forgotten."""
        while lane.held:
            if not self.is_gone(lane, lane.held.first):
                return True
            lane.held.popleft()
        return False

    def _next_look(self, lane: Lane, now: float) -> float:
        """The monotonic instant at which a limited lane has something to do, unless something happens before."""
        at = lane.call.expires if lane.call else lane.ask_at
        if at <= now:
            at = float("inf")  # it wants slots, or nothing
        if lane.reservation:
            due_at = self._due_at(lane)
            pressing_at = due_at if lane.has_spare else due_at + lane.usable_s * PRESSING
            # Beside others it is not looked at with each end of a task.
            over_at = due_at if self._lists.is_alone else due_at + lane.next_usable_s(self._limiter.clock)
            steps = (due_at - AHEAD_S, due_at, pressing_at, over_at, now + FULL_POOL_POLL_S)
            at = min(at, next(instant for instant in steps if instant > now))
        return at

    def _due_at(self, lane: Lane) -> float:
        """The monotonic instant of the next slot in hand."""
        assert lane.reservation is not None
        return self._limiter.clock.reached(lane.reservation.due_us)

    def _ask_all(self) -> None:
        """Ask for slots, the longest wait first, in one write."""
        self._is_starved, self._ask_at = False, float("inf")
        now = self._monotonic()
        if self._lists.askers and not self._lists.is_alone and now < self._pace.at:
            self._ask_at = self._pace.at
        elif self._lists.askers:
            self._calls = refused = 0
            self._room.look()
            with self._limiter.together():
                for lane in self._lists.askers.first(MOST_CALLS + MOST_REFUSED):
                    calls = self._calls
                    self._attempt(lane, "reserving slots", self._ask)
                    refused += calls == self._calls
                    if self._calls == MOST_CALLS or refused == MOST_REFUSED:
                        break
            if self._calls:
                self._pace.wrote(now)
            if self._lists.askers:
                self._ask_at = now + self._capacity.look_s
        self._is_asking = False

    def _ask(self, lane: Lane) -> None:
        now = self._monotonic()
        room = self._room.to_ask_for(lane, now)
        wanted = min(lane.unprovided, room, lane.most_slots(self._limiter.clock, now))
        if wanted <= 0:
            self._is_starved = self._is_starved or not lane.committed
            return
        if not lane.has_spare:  # if there are slots to spare, one too many hurts nobody
            wanted = lane.drop_gone(partial(self.is_gone, lane), lane.in_hand, partial(le, wanted))
        if wanted > 0:
            self._calls += 1
            self._room.asked(lane, now)
            call = lane.asks(wanted, now)
            reply = partial(self._reply, lane, call)
            self._limiter.reserve(lane.name, call.buckets, wanted, reply, call.costs, call.within_s)
        self._settle(lane)

    def _reply(self, lane: Lane, call: Call, reservation: SlotsInHand | None) -> None:
        now = self._monotonic()
        if reservation is not None and call.costs:
            reservation.costs = call.costs.of_each
        # Late if this worker was stopped between sending and reading; otherwise given up, or the limit has changed.
        if now > call.expires or lane.call is not call:
            if reservation is not None and reservation.count:
                self._faults.guard("giving slots back", self._limiter.give_back, call.buckets, reservation)
            reservation = None
        if lane.call is not call:
            return
        lane.call = None
        self._lists.touched[lane] = None
        self._attempt(lane, "taking slots", partial(self._take, call=call, reservation=reservation))
        if not self._is_gathering:
            self.pump()

    def _take(self, lane: Lane, call: Call, reservation: SlotsInHand | None) -> None:
        now = self._monotonic()
        if reservation is None:
            lane.unanswered(now, self._chance())
        elif reservation.override:
            lane.ask_at = now  # it is known now, and the limit is the same
        else:
            lane.granted(reservation, call, self._limiter.clock, now, self._chance())
            # Behind a costly slot, no other lane waits for what this one does.
            is_costly = reservation.count and reservation.end_us > reservation.now_us + HORIZON_S * US_PER_S
            if reservation.binds is not None and lane.binding in lane.waits_at and not is_costly:
                self._lists.gates.close(lane, self._opens_at(lane, now))
                lane.ask_at = now

    def _opens_at(self, lane: Lane, now: float) -> float:
        """When lanes may ask again for the limit that has stopped this one: if it is slow, soon after its next slot."""
        assert lane.limit is not None
        if lane.limit.interval_s < HORIZON_S / 8:
            return max(lane.ask_at, now + FOLLOW_S)
        enters = max(now, lane.enters(self._limiter.clock))
        return min(lane.ask_at, enters + HORIZON_S / 4 * self._chance())

    def _let_go(self, lane: Lane) -> None:
        for reservation in lane.let_go():
            self._faults.guard("giving slots back", self._limiter.give_back, lane.buckets, reservation)
