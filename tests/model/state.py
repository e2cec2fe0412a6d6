"""A moment of a cluster. Instants are ticks from now, on the Redis clock."""

from __future__ import annotations

from typing import NamedTuple

from .judge import Judge
from .setup import Events

#: Far in the past: nothing that old makes a difference.
FAR = -24


class Reservation(NamedTuple):
    """Slots in hand or on their way, `due` no earlier than they were given out. `era` is for the judge."""

    slots: tuple[int, ...]
    due: int
    interval: int
    seq: int
    era: int

    def moved(self, ticks: int) -> Reservation:
        """With all instants later by so many ticks."""
        slots = tuple([max(FAR, slot + ticks) for slot in self.slots])
        return self._replace(slots=slots, due=max(FAR, self.due + ticks))

    @property
    def rest(self) -> Reservation:
        """Without the first slot."""
        return self._replace(slots=self.slots[1:])


class Answer(NamedTuple):
    """What Redis says: its clock at the call, and slots, or the version of a higher override."""

    now: int
    version: int
    reserved: Reservation | None

    def moved(self, ticks: int) -> Answer:
        """With all instants later by so many ticks."""
        return Answer(self.now + ticks, self.version, self.reserved and self.reserved.moved(ticks))


class Call(NamedTuple):
    """A call under way since `age` ticks. `answer` is there when Redis has done it; `is_gone`: a message was lost."""

    age: int
    wanted: int
    version: int
    has_floor: bool
    is_void: bool = False
    is_gone: bool = False
    answer: Answer | None = None

    def moved(self, ticks: int) -> Call:
        """With all instants later by so many ticks."""
        return self._replace(answer=self.answer and self.answer.moved(ticks))


class GiveBack(NamedTuple):
    """The unused tail of a reservation, on its way back."""

    slots: int
    interval: int
    seq: int
    age: int = 0


class Worker(NamedTuple):
    """What a worker knows.

    Attributes:
        held: tasks that wait for a slot.
        version: of the override that it knows; 0 for the declared limit.
        hand: its reservations.
        call: under way.
        has_asked: in this tick.
        low, high: Redis' clock is surely past `low` and surely not past `high`.
        returning: give-backs on their way.
        is_cut: nothing comes or goes between it and Redis.
        alone: ticks until it may start a task by itself; None while it goes by Redis.
    """

    held: int = 0
    version: int = 0
    hand: tuple[Reservation, ...] = ()
    call: Call | None = None
    has_asked: bool = False
    low: int = FAR
    high: int = -FAR
    returning: tuple[GiveBack, ...] = ()
    is_cut: bool = False
    alone: int | None = None

    @property
    def reservations(self) -> tuple[Reservation, ...]:
        """Those in hand, and the one that an answer brings."""
        answer = self.call.answer if self.call else None
        return (*self.hand, answer.reserved) if answer and answer.reserved else self.hand

    @property
    def unprovided(self) -> int:
        """Tasks held without a slot in hand."""
        return self.held - sum([len(reserved.slots) for reserved in self.hand])

    def moved(self, ticks: int) -> Worker:
        """With all instants later by so many ticks."""
        hand = tuple([reserved.moved(ticks) for reserved in self.hand])
        call = self.call and self.call.moved(ticks)
        return self._replace(hand=hand, call=call, low=self.low + ticks, high=self.high + ticks)


class Redis(NamedTuple):
    """The bucket and the override: `last` is S, None for a full bucket; `lead`, its lead when it was written."""

    last: int | None = None
    lead: int = 0
    seq: int = 0
    version: int = 0


class State(NamedTuple):
    """A moment of the cluster. `queue` holds the tasks of killed workers, `judge` what must be remembered to judge."""

    redis: Redis
    workers: tuple[Worker, ...]
    queue: int
    left: Events
    judge: Judge

    def put(self, index: int, worker: Worker) -> State:
        """With this worker in that place."""
        return self._replace(workers=(*self.workers[:index], worker, *self.workers[index + 1 :]))

    def spend(self, event: str) -> State:
        """With one event of a kind less to come."""
        return self._replace(left=self.left._replace(**{event: getattr(self.left, event) - 1}))
