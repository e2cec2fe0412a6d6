"""All that may happen."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Literal, NamedTuple

from .bucket import reserve, take_back
from .judge import Judge
from .key import key
from .setup import Setup
from .state import FAR, Answer, Call, Redis, Reservation, State, Worker
from .worker import aged, cut_off, gone, learn, may_use, pace, read

Kind = Literal["prompt", "time", "choice", "event"]


class Step(NamedTuple):
    """What may happen next.

    Attributes:
        what: in words.
        kind: `prompt`: what a worker or Redis does as soon as it may; `time`: a tick; `choice`: what may as well not
            happen; `event`: something goes wrong.
        state: after it.
    """

    what: str
    kind: Kind
    state: State


class Model:
    """The machine."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def starts(self) -> Iterator[State]:
        """The tasks are with the first worker, or with all."""
        setup = self.setup
        one = [setup.tasks] + [0] * (setup.workers - 1)
        each = [len(range(index, setup.tasks, setup.workers)) for index in range(setup.workers)]
        for shares in {tuple(one), tuple(each)}:
            workers = tuple([Worker(held) for held in shares])
            yield State(Redis(), workers, 0, setup.events, Judge.of(setup))

    def steps(self, state: State) -> Iterator[Step]:
        """All that may happen next."""
        for index, worker in enumerate(state.workers):
            for steps in (self._network, self._pool, self._mind, self._mishaps):
                for what, kind, after in steps(state, index, worker):
                    yield Step(f"worker {index + 1} {what}", kind, after)
        yield from self._events(state)
        if not any(self._is_urgent(worker) for worker in state.workers):
            yield Step("a tick", "time", self._tick(state))

    def key(self, state: State) -> Hashable:
        """The same for states that differ in nothing that matters."""
        return key(state, self.setup)

    def _network(self, state: State, index: int, worker: Worker) -> Iterator[tuple[str, Kind, State]]:
        """A worker's call is sent, done and answered; its give-backs arrive."""
        setup, call = self.setup, worker.call
        knows_no_way = worker.is_cut and worker.alone is not None
        if call is None and worker.unprovided > 0 and not worker.has_asked and not knows_no_way:
            has_floor = worker.alone is not None and "no floor" not in setup.faults
            for wanted in {worker.unprovided, 1}:
                asked = worker._replace(call=Call(0, wanted, worker.version, has_floor), has_asked=True)
                kind: Kind = "prompt" if wanted == worker.unprovided else "choice"
                yield f"asks for {wanted}", kind, state.put(index, asked)
        if worker.is_cut:
            return
        if call and not call.is_gone and call.answer is None:
            yield self._answer(state, index, worker, call)
        if call and not call.is_gone and call.answer:
            knows = read(setup, worker, call, call.answer)
            is_return = knows.alone is None and all(other.alone is not None for other in state.workers)
            judge = state.judge.returned() if is_return else state.judge
            yield "reads the answer", "prompt", state.put(index, knows)._replace(judge=judge)
        for number, sent in enumerate(worker.returning):
            rest = worker.returning[:number] + worker.returning[number + 1 :]
            redis = take_back(setup, state.redis, sent)
            what = f"has given {sent.slots} back" if redis != state.redis else "gives back too late"
            yield what, "prompt", state.put(index, worker._replace(returning=rest))._replace(redis=redis)

    def _answer(self, state: State, index: int, worker: Worker, call: Call) -> tuple[str, Kind, State]:
        redis, slots = reserve(self.setup, state.redis, call)
        version = redis.version if not slots and redis.version > call.version else 0
        judge = state.judge.heard(self.setup, call.version)
        if not slots and not version and redis.last is not None:
            judge = judge.refused(self.setup, redis.last)
        reserved = None
        if slots:
            reserved = Reservation(slots, max(0, slots[0]), self.setup.intervals[call.version], redis.seq, judge.era)
        after = state.put(index, worker._replace(call=call._replace(wanted=0, answer=Answer(0, version, reserved))))
        what = f"learns of override {version}" if version else f"is given the slots {list(slots)}"
        return what, "prompt", after._replace(redis=redis, judge=judge)

    def _pool(self, state: State, index: int, worker: Worker) -> Iterator[tuple[str, Kind, State]]:
        """A worker starts a task."""
        setup, judge = self.setup, state.judge
        if not worker.held:
            return
        left = worker._replace(held=worker.held - 1)
        if worker.hand and may_use(setup, worker, worker.hand[0]):
            first, *others = worker.hand
            hand = (first.rest, *others) if first.slots[1:] else tuple(others)
            after = state.put(index, left._replace(hand=hand))._replace(judge=judge.started(setup, first))
            yield f"starts a task in the slot {first.slots[0]}", "prompt", after
        if worker.alone == 0:
            after = state.put(index, left._replace(alone=pace(setup, worker)))
            yield "starts a task by itself", "prompt", after._replace(judge=judge.started(setup, None))

    def _mind(self, state: State, index: int, worker: Worker) -> Iterator[tuple[str, Kind, State]]:
        """A worker notices an outage, hears of an override, is sent a task by the broker."""
        setup, call = self.setup, worker.call
        if worker.is_cut and worker.alone is None and call and call.age >= setup.silence:
            for first in range(pace(setup, worker)):
                after = state.put(index, worker._replace(call=None, alone=first))
                yield f"goes on alone, first in {first}", "prompt", after._replace(judge=state.judge.goes_alone(setup))
        newest = setup.events.override - state.left.override
        if worker.version < newest:
            yield f"hears of override {newest}", "choice", state.put(index, learn(setup, worker, newest))
        if state.queue:
            after = state.put(index, worker._replace(held=worker.held + 1))
            yield "is sent a task", "prompt", after._replace(queue=state.queue - 1)

    def _mishaps(self, state: State, index: int, worker: Worker) -> Iterator[tuple[str, Kind, State]]:
        """A worker is killed, or loses its connection and learns of it."""
        if state.left.crash:
            after = state.spend("crash").put(index, Worker(is_cut=worker.is_cut))
            judge = state.judge.crashed(self.setup, worker.reservations)
            yield "is killed and replaced", "event", after._replace(queue=state.queue + worker.held, judge=judge)
        if state.left.lost and worker.call and not worker.call.is_gone:
            call = gone(worker.call) if "waits forever" in self.setup.faults else None
            yield "loses its connection", "event", state.spend("lost").put(index, worker._replace(call=call))

    def _events(self, state: State) -> Iterator[Step]:
        """What happens to Redis, and to the way there."""
        left, judge, setup = state.left, state.judge, self.setup
        if left.override:
            version = setup.events.override - left.override + 1
            redis = state.redis._replace(version=version)
            after = state.spend("override")._replace(redis=redis, judge=judge.heard(setup, version))
            yield Step(f"override {version} is set: T is {setup.intervals[version]}", "event", after)
        if left.amnesia:
            redis = Redis(seq=0 if "serial restarted" in setup.faults else state.redis.seq)
            after = state.spend("amnesia")._replace(redis=redis, judge=judge.forgot(setup))
            yield Step("Redis loses its memory", "event", after)
        if left.step_back:
            yield Step("Redis' clock steps back", "event", self._stepped(state.spend("step_back"), -setup.step))
        if left.step_forward:
            yield Step("Redis' clock steps forward", "event", self._stepped(state.spend("step_forward"), setup.step))
        if left.cut:
            for cut in {1, setup.workers}:
                workers = tuple([cut_off(worker) for worker in state.workers[:cut]]) + state.workers[cut:]
                yield Step(f"workers cut off: {cut}", "event", state.spend("cut")._replace(workers=workers))
        if any(worker.is_cut for worker in state.workers):
            workers = tuple([w._replace(is_cut=False, call=None) if w.is_cut else w for w in state.workers])
            yield Step("Redis can be reached again", "choice", state._replace(workers=workers))

    def _stepped(self, state: State, ticks: int) -> State:
        redis = state.redis
        if redis.last is not None:
            redis = redis._replace(last=redis.last - ticks)
        workers = tuple([worker.moved(-ticks) for worker in state.workers])
        return state._replace(redis=redis, workers=workers, judge=state.judge.stepped(self.setup, ticks))

    def _tick(self, state: State) -> State:
        redis = state.redis
        if redis.last is not None:
            redis = redis._replace(last=max(FAR, redis.last - 1))
        workers = tuple([aged(self.setup, worker) for worker in state.workers])
        alone = sum([worker.alone is not None for worker in state.workers])
        return state._replace(redis=redis, workers=workers, judge=state.judge.tick(self.setup, alone))

    def _is_urgent(self, worker: Worker) -> bool:
        """Whether it has been waiting for an answer as long as one may take."""
        call = worker.call
        return call is not None and not call.is_gone and not worker.is_cut and call.age >= self.setup.slowest
