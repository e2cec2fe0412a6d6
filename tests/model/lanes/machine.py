"""All that may happen."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import NamedTuple

from ..machine import Kind
from .judge import Judge, Witness
from .limits import Limit, Slot, reserve, take_back
from .setup import Events, Setup

#: Serials are microseconds of Redis' clock, one for each call, or follow each other. So many are in a tick.
CALLS = 12_500
#: Redis' clock at the start: no step back leads to a time before its beginning.
BEGIN = 1000 * CALLS


class Reservation(NamedTuple):
    """Slots of a lane that are still in hand, or on their way back, since `age` ticks."""

    lane: int
    seq: int
    intervals: tuple[int, ...]
    slots: tuple[Slot, ...]
    age: int = 0

    def moved(self, ticks: int) -> Reservation:
        """With all instants later by so many ticks."""
        return self._replace(slots=tuple([slot.moved(ticks) for slot in self.slots]))

    @property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """The slots of each limit."""
        return tuple([slot.row for slot in self.slots])


class State(NamedTuple):
    """A moment.

    Attributes:
        limits: in Redis.
        changed: of each limit, whether its T is the second one.
        held: of each lane, the tasks that wait.
        asked: the lanes for which somebody has asked in this tick.
        hand: reservations with slots that may be used.
        returning: reservations on their way back.
        clock: of Redis, in microseconds, as serials have it.
        left: what may still happen.
        judge: what must be remembered to judge.
    """

    limits: tuple[Limit, ...]
    changed: tuple[int, ...]
    held: tuple[int, ...]
    asked: frozenset[int]
    hand: tuple[Reservation, ...]
    returning: tuple[Reservation, ...]
    clock: int
    left: Events
    judge: Judge

    def spend(self, event: str) -> State:
        """With one event of a kind less to come."""
        return self._replace(left=self.left._replace(**{event: getattr(self.left, event) - 1}))

    def unprovided(self, lane: int) -> int:
        """Tasks of a lane without a slot in hand."""
        return self.held[lane] - sum([len(its.slots) for its in self.hand if its.lane == lane])


class Step(NamedTuple):
    """What may happen next.

    Attributes:
        what: in words.
        kind: as in the model of one bucket.
        state: after it.
        asked: the lane for which somebody asks, and for how many slots.
        arrived: the reservation that is given back.
    """

    what: str
    kind: Kind
    state: State
    asked: tuple[int, int] | None = None
    arrived: Reservation | None = None


class Model:
    """The machine."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def starts(self) -> Iterator[State]:
        """Full buckets."""
        setup = self.setup
        limits, none = tuple([Limit() for _ in setup.intervals]), tuple([0 for _ in setup.intervals])
        yield State(limits, none, setup.held, frozenset(), (), (), BEGIN, setup.events, Judge.of(setup))

    def steps(self, state: State) -> Iterator[Step]:
        """All that may happen next."""
        for lane in range(len(self.setup.lanes)):
            if state.unprovided(lane) > 0 and lane not in state.asked:
                yield from self._ask(state, lane)
        for number, reservation in enumerate(state.hand):
            rest = state.hand[:number] + state.hand[number + 1 :]
            yield from self._use(state, reservation, rest)
            if state.left.returns:
                twice = 2 if "give-back twice" in self.setup.faults else 1
                kept = state.hand if "used and given back" in self.setup.faults else rest
                after = state.spend("returns")._replace(hand=kept, returning=state.returning + (reservation,) * twice)
                yield Step(f"lane {reservation.lane}: gives {reservation.rows} back", "event", after)
        for number, reservation in enumerate(state.returning):
            yield self._take_back(state, reservation, state.returning[:number] + state.returning[number + 1 :])
        yield from self._events(state)
        yield Step("a tick", "time", self._tick(state))

    def intervals(self, state: State) -> tuple[int, ...]:
        """T of each limit now."""
        return tuple([its[changed] for its, changed in zip(self.setup.intervals, state.changed)])

    def _ask(self, state: State, lane: int) -> Iterator[Step]:
        setup, numbers = self.setup, self.setup.lanes[lane]
        intervals = self.intervals(state)
        for wanted in {1, state.unprovided(lane)}:
            clock = state.clock + 1
            limits, slots, seq = reserve(setup, state.limits, numbers, intervals, wanted, clock)
            judge = state.judge.reserved(setup, numbers, state.limits, limits, slots)
            after = state._replace(limits=limits, clock=clock, asked=state.asked | {lane}, judge=judge)
            if slots:
                mine = tuple([intervals[number] for number in numbers])
                after = after._replace(hand=(*state.hand, Reservation(lane, seq, mine, slots)))
            kind: Kind = "prompt" if wanted == state.unprovided(lane) else "choice"
            what = f"lane {lane}: asks for {wanted}, is given {[tuple(slot) for slot in slots]}"
            yield Step(what, kind, after, asked=(lane, wanted))

    def _use(self, state: State, reservation: Reservation, rest: tuple[Reservation, ...]) -> Iterator[Step]:
        slot, *later = reservation.slots
        if not (state.held[reservation.lane] and slot.start <= 0 <= slot.until):
            return
        left = (reservation._replace(slots=tuple(later)),) if later else ()
        held = tuple([count - (lane == reservation.lane) for lane, count in enumerate(state.held)])
        judge = state.judge.started(self.setup, self.setup.lanes[reservation.lane])
        after = state._replace(hand=(*left, *rest), held=held, judge=judge)
        yield Step(f"lane {reservation.lane}: starts a task in {slot.row}", "prompt", after)
        if "used and given back" in self.setup.faults and state.left.returns:
            after = after.spend("returns")._replace(returning=(*state.returning, reservation))
            yield Step(f"lane {reservation.lane}: starts a task in {slot.row}, gives it back", "event", after)

    def _take_back(self, state: State, sent: Reservation, returning: tuple[Reservation, ...]) -> Step:
        numbers = self.setup.lanes[sent.lane]
        limits, taken = take_back(self.setup, state.limits, numbers, sent.intervals, sent.seq, sent.rows)
        judge = state.judge.returned(numbers, taken)
        what = f"lane {sent.lane}: of {sent.rows} its limits take back {taken}"
        return Step(what, "prompt", state._replace(limits=limits, returning=returning, judge=judge), arrived=sent)

    def _events(self, state: State) -> Iterator[Step]:
        """What happens to Redis, and what operators do."""
        left, setup, judge = state.left, self.setup, state.judge
        every = tuple(range(len(setup.intervals)))
        if left.amnesia:
            for lost in {every, *((limit,) for limit in every)}:
                limits = tuple([Limit() if n in lost else limit for n, limit in enumerate(state.limits)])
                forgotten = judge.put({n: judge.witnesses[n].forgot(setup, n) for n in lost})
                after = state.spend("amnesia")._replace(limits=limits, judge=forgotten)
                yield Step(f"limits {lost} lose their state", "event", after)
        for limit in every if left.change else ():
            if not state.changed[limit] and len(setup.intervals[limit]) > 1:
                changed = tuple([int(n == limit or its) for n, its in enumerate(state.changed)])
                limited = judge.put({limit: judge.witnesses[limit].limited(setup, limit)})
                after = state.spend("change")._replace(changed=changed, judge=limited)
                yield Step(f"limit {limit} is changed: T is {setup.intervals[limit][1]}", "event", after)
        if left.step_back:
            yield Step("Redis' clock steps back", "event", self._stepped(state.spend("step_back"), -setup.step))
        if left.step_forward:
            yield Step("Redis' clock steps forward", "event", self._stepped(state.spend("step_forward"), setup.step))

    def _stepped(self, state: State, ticks: int) -> State:
        """All instants are nearer, or further away."""
        judge = state.judge
        return self._moved(state, -ticks)._replace(
            judge=judge.put({n: it.stepped(self.setup, n, ticks) for n, it in enumerate(judge.witnesses)})
        )

    def _tick(self, state: State) -> State:
        after = self._moved(state._replace(judge=state.judge.tick(self.setup)), -1)
        hand, returning = [], []
        for reservation in after.hand:
            slots = reservation.slots
            while slots and slots[0].until < 0 and "missed not renewed" not in self.setup.faults:
                slots = slots[1:]
            if slots:
                hand.append(reservation._replace(slots=slots))
        for sent in after.returning:
            useful = [
                us >= -self.setup.oldest(n) for row in sent.rows for n, us in zip(self.setup.lanes[sent.lane], row)
            ]
            if sent.age < self.setup.slowest and any(useful):
                returning.append(sent._replace(age=sent.age + 1))
        after = after._replace(hand=tuple(hand), returning=tuple(returning), asked=frozenset())
        return self._without_past(after)

    def _moved(self, state: State, ticks: int) -> State:
        return state._replace(
            limits=tuple([limit.moved(ticks) for limit in state.limits]),
            hand=tuple([reservation.moved(ticks) for reservation in state.hand]),
            returning=tuple([reservation.moved(ticks) for reservation in state.returning]),
            clock=state.clock - ticks * CALLS,
        )

    def _without_past(self, state: State) -> State:
        """Without instants that are too old to make a difference."""
        setup, limits, witnesses = self.setup, list[Limit](), dict[int, Witness]()
        for number, limit in enumerate(state.limits):
            useless = -setup.oldest(number) - setup.step * state.left.step_back
            useless_last = useless - max(setup.intervals[number])
            in_use = {
                row[setup.lanes[its.lane].index(number)]
                for its in (*state.hand, *state.returning)
                if number in setup.lanes[its.lane]
                for row in its.rows
            }
            witnesses[number] = state.judge.witnesses[number].without_past(useless_last, in_use)
            if limit.last is not None:
                holes = tuple([hole for hole in limit.holes if hole >= useless])
                limit = limit._replace(last=max(limit.last, useless_last), holes=holes)
            limits.append(limit)
        return state._replace(limits=tuple(limits), judge=state.judge.put(witnesses))

    def key(self, state: State) -> Hashable:
        """The same for states that differ in nothing that matters: in serials, in what is past, in who has what."""
        seqs = {0, *(limit.seq for limit in state.limits), *(limit.grid or 0 for limit in state.limits)}
        seqs.update([its.seq for its in (*state.hand, *state.returning)])
        rank = {seq: (number, max(0, seq // CALLS - state.clock // CALLS)) for number, seq in enumerate(sorted(seqs))}
        limits = tuple(
            [
                (
                    limit.last,
                    limit.lead if state.left.step_back or limit.has_stepped else 0,
                    rank[limit.seq],
                    limit.holes,
                    limit.interval,
                    limit.grid and rank[limit.grid],
                )
                for limit in state.limits
            ]
        )
        hand, returning = [
            tuple(sorted([(its.lane, rank[its.seq], its.intervals, its.slots, its.age) for its in every]))
            for every in (state.hand, state.returning)
        ]
        return limits, state.changed, state.held, state.asked, hand, returning, state.left, state.judge
