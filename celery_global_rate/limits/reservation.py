"""What Redis answers: slots in a row, and those of them that are still in hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass
from typing import Any, Optional, Protocol

from .bucket import Bucket
from .costs import Cost, Costs
from .duration import US_PER_S
from .limit import PS_PER_US
from .redis_clock import LAST_US, RedisClock

#: The most that reserve.lua gives out at once.
SLOTS_PER_CALL = 1000


class SlotsInHand(ABC):
    """Slots in a row, used from the front.

    Attributes:
        now_us: the Redis clock when the call was made, epoch us.
        count: slots granted, 0 or more.
        seq: the serial of the booking, which giving back must name; 0 if Redis knows nothing of it.
        waiting: workers that wait for slots, this one among them.
        binds: the bucket of the lane that sets the slot after these, counted from 0; None if that is not said.
        override: a higher override of a bucket than the caller knows: then nothing was granted. Else empty.
        which: the bucket that `override` belongs to, counted from 0.
        used: slots that are no longer in hand: released or missed.
        costs: what each slot costs; None if that is one unit of each limit.
    """

    now_us: int
    count: int
    seq: int
    waiting: int
    binds: int | None
    override: str | bytes
    which: int
    used: int
    costs: tuple[Cost, ...] | None = None

    @abstractmethod
    def slot_us(self, index: int) -> int:
        """The instant of a slot, epoch us, rounded up; `index` may be `count`: the one after the last."""

    @abstractmethod
    def due_by(self, redis_us: float) -> int:
        """How many slots in hand are due at an instant of the Redis clock (epoch us)."""

    def usable_s(self, most_s: float) -> float:
        """How long after the next slot a release may begin, in seconds.

        Args:
            most_s: by the grace of its limit, if the answer does not say it.
        """
        return most_s

    @property
    def left(self) -> int:
        """Slots in hand."""
        return self.count - self.used

    @property
    def due_us(self) -> int:
        """The instant of the next slot in hand, epoch us."""
        return self.slot_us(self.used)

    @property
    def ahead_s(self) -> float:
        """How far ahead of the clock the next slot in hand was when it was reserved, in seconds."""
        return (self.due_us - self.now_us) / US_PER_S

    @property
    def cost(self) -> Cost | None:
        """What the next slot in hand costs; None if that is one unit of each limit."""
        return self.costs[self.used] if self.costs else None

    @property
    def end_us(self) -> int:
        """The instant of the last slot, epoch us."""
        return self.slot_us(self.count - 1)

    @property
    def has_spare(self) -> bool:
        """Whether there was a slot at once: the limit is not what this worker waits for."""
        return self.count > 0 and self.slot_us(0) <= self.now_us

    def late_s(self, clock: RedisClock, now: float) -> float:
        """How long ago the next slot in hand was surely due, in seconds; negative if it is still to come.

        A slot that a full bucket had saved was due when it was reserved: its lateness counts from then.

        Args:
            clock: the worker's view of the Redis clock.
            now: monotonic seconds.
        """
        return now - clock.reached(max(self.due_us, self.now_us))

    def miss(self, clock: RedisClock, before: float) -> int:
        """Let the next slot in hand go unused, and all of them if the last was due before a monotonic instant.

        Returns:
            How many.
        """
        is_over = clock.reached(max(self.end_us, self.now_us)) < before
        missed = self.left if is_over else 1
        self.used += missed
        return missed

    def last(self, count: int) -> SlotsInHand:
        """The slots that were last used or missed, so many of them, as if they were all that is in hand."""
        found = copy(self)
        found.count, found.used = self.used, self.used - count
        return found


@dataclass
class Reservation(SlotsInHand):
    """Consecutive slots of one limit, used from the front.

    Attributes:
        first_us: the first slot, epoch us; if `count` is 0, the next one that will be free.
        first_ps: its remainder in picoseconds.
        interval_us: from one slot to the next, whole microseconds.
        interval_ps: its remainder in picoseconds.
    """

    now_us: int
    first_us: int
    first_ps: int
    interval_us: int
    interval_ps: int
    count: int
    seq: int
    waiting: int
    override: str | bytes = ""
    used: int = 0
    binds: int | None = None
    which: int = 0

    @classmethod
    def read(cls, answer: Sequence[Any]) -> Reservation:
        """Read the answer of `reserve`.

        Raises:
            ValueError: something else has answered.
        """
        *numbers, override = answer or [None]
        is_whole = len(numbers) == 8 and all(type(number) is int and 0 <= number <= LAST_US for number in numbers)
        if not is_whole or not isinstance(override, (str, bytes)) or numbers[5] > SLOTS_PER_CALL:
            raise ValueError("unexpected reply to reserve.lua")
        return cls(*answer)

    def slot_us(self, index: int) -> int:
        ps = self.first_ps + index * self.interval_ps
        return self.first_us + index * self.interval_us + -(-ps // PS_PER_US)

    def due_by(self, redis_us: float) -> int:
        if redis_us < self.due_us:
            return 0
        interval_us = self.interval_us + self.interval_ps / PS_PER_US
        return min(self.left, int((redis_us - self.due_us) / interval_us) + 1) if interval_us else self.left


#: Takes the answer to a reserve call, once; None if there was none.
Reply = Callable[[Optional[SlotsInHand]], None]


class SlotSource(Protocol):
    """What the scheduler knows of the limiter. Neither verb waits."""

    clock: RedisClock

    def reserve(
        self,
        name: str,
        buckets: tuple[Bucket, ...],
        wanted: int,
        reply: Reply,
        costs: Costs | None = None,
        within_s: float = ...,
    ) -> None:
        """Ask for up to `wanted` slots of each bucket that cost this, and are of use if no further ahead than that."""

    def together(self) -> AbstractContextManager[None]:
        """What is asked for meanwhile goes out at the end, in one write."""

    def give_back(self, buckets: tuple[Bucket, ...], reservation: SlotsInHand) -> None:
        """Return what is left of a reservation."""
