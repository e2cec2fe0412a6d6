"""The pool, as far as the scheduler knows it, and its free capacity."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from .run_times import FAR_QUICK_S, QUICK_S, RunTimes

#: Tasks on deck for each process if the limit is out of reach, and at least for all: fewer looks per task.
FAR_DECK, LEAST_FAR_DECK = 3, 8
#: A long wait for a process, by what it is in the mean.
LONG_WAIT = 3.5
#: Places in the line for each process, as many as Celery's own window has tasks; and never more than this.
PLACES, MOST_PLACES = 4, 200
#: An end that is expected with this much less than certainty counts.
SURE = 0.3
#: How often a full pool is looked at, in seconds. The end of a task is noticed at once, the loss of a process is not.
FULL_POOL_POLL_S = 0.05
SHORTEST_LOOK_S = 0.005
#: What the worker's own loop takes for a task, in seconds: its message, its release, its result, its acknowledgement.
#: It may be more, as the tasks of other workers need the processor as well: that is learnt from so many ends, and
#: forgotten within as many as that.
LOOP_S = 0.001
ENDS_KNOWN, ENDS_FORGOTTEN = 30, 1000
LONGEST_APART_S = 0.05


class Line(Protocol):
    """Our places in the line of those that wait for a process."""

    @property
    def turns(self) -> int:
        """Processes that are kept for us, because our turn in the line has come."""

    @property
    def in_front(self) -> int:
        """Places whose turn has come, and which have let others pass for want of a slot."""

    @property
    def wait_s(self) -> float:
        """How long such a place waits for a process, in seconds, once it wants one."""


class Pool(Protocol):
    """What the scheduler knows of the pool."""

    @property
    def processes(self) -> int:
        """Tasks that can run at the same time."""

    @property
    def free(self) -> int:
        """Processes without a task; negative by the number of tasks that wait for a process."""

    @property
    def has_deck(self) -> bool:
        """Whether a released task may wait for a process there; otherwise the release itself waits."""

    @property
    def on_deck(self) -> int:
        """Released tasks that wait for a process."""

    @property
    def line(self) -> Line:
        """Our places in the line for a process."""

    @property
    def started(self) -> Collection[float]:
        """When our tasks that run now began to, in monotonic seconds: the oldest first."""

    def line_up(self, places: int, wanted: int) -> None:
        """Have this many places in the line for a process, and keep so many processes as soon as our turn comes."""

    def start(self, request: Any, failed: Callable[[Exception], None]) -> None:
        """Release a request: to a process of our turn if there is one.

        Args:
            request: one of those held.
            failed: called later with an error that comes after this has returned.

        Raises:
            Exception: any of the pool's.
        """

    def has_accepted(self, request: Any) -> bool:
        """Whether a request began to run although `start` has ended in an error. Else it may be started again."""

    def is_gone(self, request: Any) -> bool:
        """Whether a request must not run any more (revoked, expired). Asks nobody."""

    def may_be_gone(self, requests: Iterable[Any]) -> bool:
        """Whether one of these was revoked or can expire: a quick look at many."""

    def dismiss(self, request: Any) -> bool:
        """Store the state of such a request and acknowledge it; whether it was one. Its result backend may be slow."""


class WorkerPool(Pool, Protocol):
    """What else a worker knows of its pool."""

    def listen(self, ended: Callable[[float], None], ready: Callable[[], None], call: Callable[..., None]) -> None:
        """Call `ended` with the run time of each released task, in any thread; `ready` when a turn has come.

        `call` runs what else has to be in the worker's loop.
        """

    def show(self, request: Any) -> None:
        """Let Celery's commands find a held request."""

    def hide(self, requests: Iterable[Any]) -> None:
        """These are held no longer."""

    def clear(self) -> None:
        """Forget our places in the line, as Celery forgets all others."""


class Capacity:
    """How many tasks may go to the pool, and how many slots it could use there.

    A free process takes a task at once. A full pool of quick tasks has one in a moment: a task may wait on deck for it.
    If the pool is full of anything else, or a release would block, a process comes only by our turn in the line.

    Args:
        pool: with its processes.
        monotonic: the clock, in seconds.
        loop_s: what the worker's own loop takes for a task at the least, in seconds.

    Attributes:
        is_far: whether the limits of all that is held are out of reach: it waits for the pool only.
    """

    def __init__(self, pool: Pool, monotonic: Callable[[], float], loop_s: float = LOOP_S) -> None:
        self.is_far = False
        self._run_times = RunTimes()
        self._pool = pool
        self._monotonic = monotonic
        self._may_end = 0
        self._ended_at, self._was_behind = float("-inf"), False
        #: From the end of one task to that of the next, in seconds, while slots that are due wait.
        self._apart_s = self._least_loop_s = loop_s

    @property
    def at_once(self) -> int:
        """How many tasks may be released to processes that are free now, or kept for us."""
        return max(self._pool.free, self._pool.line.turns, 0)

    @property
    def with_deck(self) -> int:
        """How many tasks may be released if they may wait on deck as well, because the pool is what holds us up."""
        return self.at_once + self._deck - self._pool.on_deck if self._is_quick else self.at_once

    def rests(self, has_slots: bool) -> None:
        """The pool needs no look until some tasks have ended.

        Args:
            has_slots: that more could be released; else there is nothing to look for before the next answer.
        """
        pool = self._pool
        self._may_end = pool.on_deck - (pool.processes + 1) // 2 - 1 if has_slots else pool.processes

    def ended(self, run_time_s: float | None, now: float, *, is_behind: bool) -> bool:
        """A released task has ended; returns whether the pool needs a look.

        Args:
            run_time_s: how long it ran, in seconds; None if that is not known.
            now: monotonic seconds.
            is_behind: whether slots that are due wait for a process, so that ends come as fast as they can.
        """
        if is_behind and self._was_behind:
            self._apart_s += (min(now - self._ended_at, LONGEST_APART_S) - self._apart_s) / ENDS_KNOWN
        elif not is_behind:
            self._apart_s += (self._least_loop_s - self._apart_s) / ENDS_FORGOTTEN
        self._ended_at, self._was_behind = now, is_behind
        if run_time_s is not None:
            self._run_times.ran(run_time_s, now)
        self._may_end -= 1
        return self._may_end < 0

    def slots(self, within_s: float, deviations: float = 0.0) -> int:
        """How many slots could be used within this time; those in hand are not taken off.

        Args:
            within_s: in seconds; 0 counts only the processes that are free now, or kept for us.
            deviations: so many standard deviations fewer than what is to be expected.
        """
        pool = self._pool
        free = pool.free
        if self.is_crowded:  # how fast the line moves is up to others
            return pool.processes - pool.on_deck if self._is_quick else self._in_line(within_s)
        if not within_s:
            return max(pool.line.turns, free)
        now = self._monotonic()
        ages_s = [now - started for started in pool.started]
        ages_s += [0.0] * (free + pool.on_deck)  # without a task, or with one that is on its way
        expected, deviation = self._run_times.ends(ages_s, within_s)
        deck = self._deck if self.is_far and self._is_quick else 0
        return max(pool.line.turns, free + deck + max(0, int(expected - deviations * deviation + SURE)))

    @property
    def loop_s(self) -> float:
        """What the worker takes for a task beside its run time, in seconds, if it has all that it can do."""
        return max(self._least_loop_s, self._apart_s - self._run_times.mean_s / max(1, self._pool.processes))

    @property
    def look_s(self) -> float:
        """How long a forecast is good for, in seconds: a part of a run time."""
        part_s = self._run_times.mean_s / 20
        return min(max(part_s, SHORTEST_LOOK_S), FULL_POOL_POLL_S) if part_s else FULL_POOL_POLL_S

    @property
    def is_crowded(self) -> bool:
        """Whether tasks without a limit wait for a process as well."""
        return -self._pool.free > self._pool.on_deck

    @property
    def is_in_line(self) -> bool:
        """Whether a process comes only by our turn in the line."""
        return self._pool.free <= 0 and not self._is_quick

    def claim_s(self, usable_s: float) -> float:
        """How long before a slot a process is claimed for it, in seconds, if it can be used for so long.

        The process then comes before the grace of the slot ends, nineteen times of twenty: processes end one after the
        other, and so a wait is seldom longer than three and a half in the mean.
        """
        wait_s = self._pool.line.wait_s
        return max(wait_s, LONG_WAIT * wait_s - usable_s)

    def places(self, waiting: int, of_use: int) -> tuple[int, int]:
        """How many places in the line to have, and how many processes to keep once they come.

        Args:
            waiting: limited tasks that are held.
            of_use: so many of them could use a process at once.
        """
        processes = self._pool.processes
        return min(waiting, PLACES * processes, MOST_PLACES), min(of_use, processes)

    def _in_line(self, within_s: float) -> int:
        pool = self._pool
        may_come = int(within_s / pool.line.wait_s) if pool.line.wait_s else pool.line.in_front
        return pool.line.turns + min(pool.line.in_front, may_come)

    @property
    def _deck(self) -> int:
        """How many tasks may wait on deck, if any may."""
        processes = self._pool.processes
        return max(FAR_DECK * processes, LEAST_FAR_DECK) if self.is_far and self._run_times.are_quick() else processes

    @property
    def _is_quick(self) -> bool:
        """Whether a full pool will have a process for us in a moment."""
        quick_s = FAR_QUICK_S if self.is_far and not self.is_crowded else QUICK_S
        if not (self._pool.has_deck and self._run_times.are_quick(quick_s)):
            return False
        now = self._monotonic()
        return self._run_times.has_just_ended(now, quick_s) or now - max(self._pool.started, default=now) <= quick_s
