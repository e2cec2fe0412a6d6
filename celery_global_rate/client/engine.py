"""All that gives out the slots of one Redis to the callers of this process. It lives in the loop of the hub."""

from __future__ import annotations

import heapq
import os
import random
import socket
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from ..limits.bucket import window_of
from ..limits.duration import US_PER_S
from ..limits.limit import LONGEST_FILL_US
from ..scheduling.chores import Chores
from ..scheduling.faults import FIRST_PAUSE_S, Faults
from ..scheduling.lane import Lane
from ..scheduling.pace import Pace
from ..scheduling.scheduler import Scheduler
from ..storage.location import Location
from ..storage.session import Session
from .callers import Callers
from .lanes import TOGETHER_S, Lanes
from .loop import Loop
from .terms import Terms
from .tries import Tries
from .waiter import Waiter

#: For so long after the last call this process counts among those that share the limits, in seconds.
ACTIVE_S = 30.0
#: What the start of a caller takes in the hub, in seconds.
START_S = 0.00005
#: How often a connection that is being opened is looked at, in seconds.
LOOK_S = 0.02
#: So many deadlines of callers that have gone on may be left for each that waits, before they are cleared away.
STALE, FEWEST = 4, 64


class Engine:
    """Scheduler, lanes and session.

    Args:
        location: of the Redis.
        on_outage: the name of a policy.
        loop: that this lives in.
    """

    def __init__(self, location: Location, on_outage: str, loop: Loop) -> None:
        self._loop = loop
        self._alarm = loop.add_alarm(self._ring)
        self._faults = Faults()
        self.session = Session(
            location,
            on_outage,
            f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}",
            loop.waker,
            self._alarm.set,
            lambda: self.scheduler.in_one_turn(),
            lambda: self.scheduler.held + len(self._early),
            self._recovered,
            lambda name: self.lanes.refresh(name),
            lambda name, value: self.lanes.refresh(name),
            self._begin,
            self._is_active,
        )
        self.clock = self.session.clock
        self.scheduler = Scheduler(
            Callers(),
            self.session.limiter,
            self._alarm.set,
            lambda held: None,
            time.monotonic,
            random.random,
            self._faults,
            START_S,
            Pace(TOGETHER_S),
        )
        self.lanes = Lanes(
            self.session.overrides,
            self.session.back_offs,
            self.clock,
            lambda *in_force: self.scheduler.configure(*in_force),
            self._give_up,
        )
        self.tries = Tries(self.session.limiter, self.session.outage.counts, self._alarm.set, time.monotonic)
        self._chores = Chores(
            {
                "beginning": self._keep_beginning,
                "asking for callers that do not wait": self.tries.keep_up,
                "giving up": self._keep_deadlines,
                "noticing an outage": self._notice,
                "resting": self._rest,
                **self.session.chores,
            },
            self._faults,
        )
        #: Those that came while there was no connection yet, and what is to be done with each.
        self._early: list[tuple[Waiter, Callable[[Waiter], None]]] = []
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._order = count()
        self._used_at = float("-inf")
        self._is_away = self._is_counted = False

    def attach(self) -> None:
        """Begin. Called in the loop."""
        self.session.attach(self._loop)
        self._alarm.set(time.monotonic())

    def detach(self) -> None:
        """Give slots back and close. Called in the loop."""
        self.scheduler.clear()
        self.session.detach()

    def acquire(self, waiter: Waiter) -> None:
        """Let a caller wait for its slot. From any thread."""
        self._loop.waker.call(partial(self._await, waiter))

    def try_acquire(self, waiter: Waiter) -> None:
        """Answer a caller that does not wait. From any thread."""
        self._loop.waker.call(partial(self._take, waiter, self._try))

    def cancel(self, waiter: Waiter) -> None:
        """A caller waits no more. From any thread."""
        self._loop.waker.call(partial(self._withdraw, waiter))

    def back_off(self, terms: Terms, value: str | None, length_us: int) -> None:
        """An API has asked for a pause of a bucket. From any thread."""
        windows = [window_of(window, value) for window in terms.windows]
        why = f"a caller had to wait {length_us / US_PER_S:g} s"
        self._loop.waker.call(partial(self.session.back_off, terms.name, value, windows, length_us, why))

    def _await(self, waiter: Waiter) -> None:
        if waiter.deadline < float("inf"):
            heapq.heappush(self._deadlines, (waiter.deadline, next(self._order), waiter))
            self._alarm.set(waiter.deadline)
        self._take(waiter, self._hold)

    def _take(self, waiter: Waiter, do: Callable[[Waiter], None]) -> None:
        now = time.monotonic()
        if now - self._used_at > 1:
            self._alarm.set(now)  # what has rested goes on
        self._used_at = now
        if self._early or not self.session.is_reachable:
            self._early.append((waiter, do))
            self.session.open()
            self._alarm.set(now + LOOK_S)
        else:
            do(waiter)

    def _hold(self, waiter: Waiter) -> None:
        lane = waiter.lane = self.lanes.lane(waiter)
        if self.session.outage.counts(lane.name):  # what Redis has said does not count any more
            self.scheduler.ask_again([lane])
        self.scheduler.hold(lane, waiter)
        if not waiter.is_over and lane.is_in_vain(waiter, self.clock):
            self._give_up(lane, [waiter])

    def _try(self, waiter: Waiter) -> None:
        self.tries.add(self.lanes.lane(waiter), waiter)

    def _begin(self) -> None:
        """There is a connection, or an outage that counts: those that came before have their turn."""
        early, self._early = self._early, []
        for waiter, do in early:
            if not waiter.is_over:
                self._faults.guard("taking a caller in", do, waiter)

    def _keep_beginning(self, now: float) -> float:
        if self._early and self.session.is_reachable:
            self._begin()
        if not self._early:
            return float("inf")
        self.session.open()
        return now + LOOK_S

    def _keep_deadlines(self, now: float) -> float:
        """Refuse those whose time is over; returns the next deadline."""
        over: defaultdict[Lane | None, list[Waiter]] = defaultdict(list)
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].is_over):
            waiter = heapq.heappop(self._deadlines)[2]
            if not waiter.is_over:
                over[waiter.lane].append(waiter)
        for lane, waiters in over.items():
            self._give_up(lane, waiters)
        if len(self._deadlines) > STALE * (self.scheduler.held + len(self._early) + FEWEST):
            self._deadlines = [it for it in self._deadlines if not it[2].is_over]
            heapq.heapify(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else float("inf")

    def _give_up(self, lane: Lane | None, waiters: Sequence[Waiter]) -> None:
        retry_after = None
        if lane is not None:
            self.scheduler.withdraw(lane, waiters)
            retry_after = self._next_s(lane)
        for waiter in waiters:
            waiter.refuse(retry_after)

    def _next_s(self, lane: Lane) -> float | None:
        """In how many seconds the next slot may come, by the last answer; None if none has said it."""
        if not lane.next_us:
            return None
        next_s = self.clock.reached(lane.next_us) - time.monotonic()
        return max(0.0, next_s) if next_s < LONGEST_FILL_US / US_PER_S else None

    def _withdraw(self, waiter: Waiter) -> None:
        if not waiter.is_over:
            waiter.is_over = True
            if waiter.lane is not None:
                self.scheduler.withdraw(waiter.lane, [waiter])

    def _notice(self, now: float) -> float:
        """When an outage begins to count, let those ask the policy that wait for a slot of Redis."""
        was_away, self._is_away = self._is_away, self.session.is_away
        if self._is_away and not was_away:
            self.scheduler.ask_again(self.scheduler.busy)
        return now + LOOK_S if self.session.outage.reason and not self._is_away else float("inf")

    def _is_active(self) -> bool:
        if self.scheduler.held or self._early:
            self._used_at = time.monotonic()
        return time.monotonic() - self._used_at < ACTIVE_S

    def _rest(self, now: float) -> float:
        """Nobody has called for a while: the others need not count this process."""
        if self._is_active():
            self._is_counted = True
            return self._used_at + ACTIVE_S
        if self._is_counted:
            self._is_counted = False
            self.session.heartbeat.leave()
        return float("inf")

    def _recovered(self) -> None:
        """Redis is back: slots that the policy has given out are void."""
        self.scheduler.let_go()
        self._alarm.set(time.monotonic())

    def _ring(self) -> None:
        if not self._faults.guard("the loop's turn", self.scheduler.pump):
            self._alarm.set(time.monotonic() + FIRST_PAUSE_S)
        self._alarm.set(self._chores.keep_up(time.monotonic()))
