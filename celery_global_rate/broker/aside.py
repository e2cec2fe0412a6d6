"""Which queues are put aside: a backlog of limited tasks must not be in the way of other queues."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from ..limits.limit import spelled
from ..limits.redis_clock import RedisClock
from ..scheduling.lane import Lane

logger = logging.getLogger(__name__)

#: The share of what a queue may have held that has gone when it is consumed again.
GONE_SHARE = 1 / 4
#: A queue that will have released this share sooner, in seconds, is not put aside: a Redis broker takes up to a second
#: to notice that it is consumed again.
SOONEST_S = 0.5
#: How often queues that are aside, or full, are looked at, in seconds.
LOOK_S = 0.1
#: How many tasks are named when a queue is first put aside.
NAMED = 3


class ConsumedQueues(Protocol):
    """The queues that the worker consumes."""

    @property
    def names(self) -> set[str]:
        """All of them, those aside among them."""

    def can_spare(self, name: str) -> bool:
        """Whether a queue stays as it is without its consumer."""

    def put_aside(self, names: frozenset[str]) -> None:
        """Let these queues be aside, and no others."""


class Aside:
    """Puts queues aside that have as many messages held as they may, if all queues share one prefetch count.

    With one count, the held messages of one queue would take the places of all others. A queue is consumed again when a
    quarter of what it may have held is gone. One queue is always consumed. If it is full as well, the others still have
    what they need: every held message has its own place, except those that this queue has above its share.

    Args:
        most: so many messages of a queue may be held.
        queues: the worker's.
        held: how much is held in all.
        busy: the lanes that hold something.
        clock: the worker's view of the Redis clock.
        monotonic: the clock, in seconds.

    Attributes:
        names: of the queues that are aside.
    """

    def __init__(
        self,
        most: int,
        queues: ConsumedQueues,
        held: Callable[[], int],
        busy: Callable[[], Iterable[Lane]],
        clock: RedisClock,
        monotonic: Callable[[], float],
    ) -> None:
        self._most = most
        self._queues = queues
        self._held, self._busy = held, busy
        self._clock = clock
        self._monotonic = monotonic
        self._is_connected = self._is_on = False
        self._logged: set[str] = set()
        self.forget()

    @property
    def again_at(self) -> int:
        """A queue with so many messages held, or fewer, is consumed again."""
        return self._most - max(1, round(self._most * GONE_SHARE))

    def forget(self) -> None:
        """The connection to the broker is gone or about to be closed: nothing is aside, and nothing will be."""
        self._is_connected = self._is_on = False
        self.names: frozenset[str] = frozenset()
        self._room = self._most
        self._came = 0
        self._look_at = float("-inf")

    def begin(self) -> None:
        """The worker is connected to its broker."""
        self._is_connected = True

    def received(self) -> None:
        """One more is held."""
        self._came += 1

    def room(self) -> int:
        """How many prefetch slots may be lent for what is held. Asked only if all queues share one count."""
        self._is_on = self._is_connected and self._most > 0
        if self._is_on and self._came >= max(1, self._most // 16):  # not for each message
            self._look()
        return self._room

    def keep_up(self, now: float) -> float:
        """Look after queues that are aside, or full; returns the monotonic instant of the next look."""
        if not self._is_on or self._has_room:
            return float("inf")
        if now >= self._look_at:
            self._look()
            self._look_at = now + LOOK_S
        return self._look_at

    def why(self, lanes: Iterable[Lane]) -> dict[str, str]:
        """Which of the queues that have brought what some lanes hold are aside, and why."""
        count: Counter[str | None] = sum(map(_count, self._busy()), Counter())
        theirs: Counter[str | None] = sum(map(_count, lanes), Counter())
        return {
            name: f"put aside: {count[name]} of its tasks are held, and {self._most} is the most "
            f"(global_rate_max_held); consumed again at {self.again_at}"
            for name in sorted(self.names.intersection(theirs))
        }

    @property
    def _has_room(self) -> bool:
        """Whether no queue is aside, and less is held in all than may be of any."""
        return not self.names and self._held() < self._most

    def _look(self) -> None:
        self._came = 0
        held = {} if self._has_room else {lane: _count(lane) for lane in self._busy()}
        count: Counter[str | None] = sum(held.values(), Counter())
        names = self._queues.names
        aside = {name for name in self.names & names if count[name] > self.again_at and self._is_slow(name, held)}
        for name, messages in count.most_common():
            if messages < self._most:
                break
            if name is None or name in aside or name not in names or len(names) - len(aside) == 1:
                continue
            if self._queues.can_spare(name) and self._is_slow(name, held):
                aside.add(name)
                self._log_first(name, held)
        self.names = frozenset(aside)
        self._queues.put_aside(self.names)
        self._room = self._most if len(names) == 1 else self._places(count)

    def _places(self, count: Counter[str | None]) -> int:
        """For how many of these messages there may be a prefetch slot each."""
        if all(messages < self._most for name, messages in count.items() if name not in self.names):
            return sys.maxsize
        return sum(messages if name in self.names else min(messages, self._most) for name, messages in count.items())

    def _is_slow(self, name: str, held: Mapping[Lane, Counter[str | None]]) -> bool:
        """Whether a queue, once it is put aside, may stay so for a while."""
        now = self._monotonic()
        return sum(self._soon(lane, count[name], now) for lane, count in held.items()) < self._most - self.again_at

    def _soon(self, lane: Lane, messages: int, now: float) -> float:
        """How many of these a lane is about to release."""
        if lane.opens(self._clock) > now + SOONEST_S:
            return 0
        if lane.limit is None or lane.is_far:
            return messages
        return min(messages, SOONEST_S / (lane.limit.interval_s * lane.waiting))

    def _log_first(self, name: str, held: Mapping[Lane, Counter[str | None]]) -> None:
        """Log a queue the first time that it is put aside."""
        if name in self._logged:
            return
        self._logged.add(name)
        most_first = sorted((lane for lane in held if held[lane][name]), key=lambda lane: -held[lane][name])
        why = [f"{lane.name} at {spelled(lane.limits)}" for lane in most_first[:NAMED]]
        logger.info(
            "global-rate: queue %s is put aside whenever %d of its tasks are held (global_rate_max_held), and consumed "
            "again when a quarter of them has gone, so that other queues go on: %s%s",
            name,
            self._most,
            ", ".join(why),
            ", and others" if len(most_first) > NAMED else "",
        )


def _count(lane: Lane) -> Counter[str | None]:
    """The held messages of a lane by the queues they came from."""
    return Counter([request.queue_name for request in lane.requests])
