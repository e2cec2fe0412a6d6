"""Lanes that cross, explored: everything that a few tasks can go through, and that errors in it are found."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest
import redis

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.lane_reservation import LaneReservation
from celery_global_rate.limits.limit import Limit

from .model.explorer import Exploration, Explorer
from .model.lanes.limits import Limit as Modelled
from .model.lanes.limits import take_back
from .model.lanes.machine import CALLS, Model, Reservation, State, Step
from .model.lanes.setup import FAULTS, Events, Setup
from .storage.lanes import LANE_SOURCES, Lanes
from .storage.replay import HORIZON_US, NOW

#: A limit that two lanes pass, one of which has another limit as well.
OWN = Setup()
#: Two limits, with a lane for each and one through both.
BOTH = Setup(lanes=((0,), (0, 1), (1,)), held=(1, 1, 1))
#: As little as can cross.
TWO = OWN._replace(held=(1, 1))
CROSSINGS = {
    "one of two limits is crossed": OWN,
    "slots are given back": TWO._replace(events=Events(returns=1)),
}
LARGER = {
    "states are lost": TWO._replace(events=Events(amnesia=1)),
    "a limit becomes slower": TWO._replace(intervals=((2, 3), (3,)), events=Events(change=1)),
    "two limits are crossed": BOTH,
    "five tasks": OWN._replace(held=(3, 2)),
    "a burst": OWN._replace(bursts=(2, 1)),
    "bursts of both": OWN._replace(bursts=(2, 2), horizon=2),
    "a limit becomes faster": TWO._replace(intervals=((3, 2), (2,)), events=Events(change=1)),
    "the other limit changes": TWO._replace(intervals=((2,), (3, 2)), events=Events(change=1)),
    "the clock steps back": TWO._replace(events=Events(step_back=1)),
    "the clock steps forward": TWO._replace(events=Events(step_forward=1)),
    "slots are given back, three tasks": OWN._replace(events=Events(returns=1)),
    "slots are given back twice": TWO._replace(events=Events(returns=2)),
    "slots are given back, and states are lost": TWO._replace(events=Events(returns=1, amnesia=1)),
    "slots are given back, and a limit changes": TWO._replace(
        intervals=((2, 3), (3,)), events=Events(returns=1, change=1)
    ),
    "slots are given back, and the clock steps back": TWO._replace(events=Events(returns=1, step_back=1)),
}

STARTS, OVERLAP, BOOKED = (
    "a window holds too many starts",
    "booked slots or holes overlap",
    "not all limits have booked",
)
ANOTHER, STALLS, NEVER = "a slot is free that is another's", "a limit stalls", "never started"

SHARP = OWN._replace(grace=0, age=0)  # no start too many hides in the grace
#: Per fault: what is wrong with it, and where.
PLANTED = {
    "one not booked": (BOOKED, TWO),
    "refused books": (BOOKED, OWN._replace(horizon=1)),
    "hole kept": (BOOKED, OWN),
    "holes overlap": (OVERLAP, OWN._replace(intervals=((4,), (6,)), horizon=6)),
    "slot older": (STARTS, OWN),
    "give-back twice": (ANOTHER, SHARP._replace(events=Events(returns=1))),
    "give-back twice, overlap unseen": (ANOTHER, SHARP._replace(events=Events(returns=1))),
    "used and given back": (STARTS, SHARP._replace(events=Events(returns=1))),
    "serial unchecked": (ANOTHER, TWO._replace(events=Events(returns=1, amnesia=1))),
    "serial unchecked, interval unchecked": (
        OVERLAP,
        TWO._replace(intervals=((2, 3), (3,)), events=Events(returns=1, change=1)),
    ),
    "holes stay": (OVERLAP, OWN._replace(events=Events(step_back=1))),
    "step unseen": (STALLS, OWN._replace(events=Events(step_back=1))),
    "missed not renewed": (NEVER, TWO._replace(held=(1, 0))),
}


def explore(setup: Setup) -> Exploration:
    return Explorer(Model(setup)).explore()


@pytest.mark.parametrize("name", CROSSINGS)
def test_the_promises_hold(name: str, figures: Callable[[str], None]) -> None:
    found = explore(CROSSINGS[name])

    assert not found.wrong, str(found)
    figures(f"{found.states:,} states; at the latest {found.longest} ticks to the last start")


@pytest.mark.long
@pytest.mark.parametrize("name", LARGER)
def test_the_promises_hold_with_more(name: str, figures: Callable[[str], None]) -> None:
    found = explore(LARGER[name])

    assert not found.wrong, str(found)
    figures(f"{found.states:,} states; at the latest {found.longest} ticks to the last start")


@pytest.mark.parametrize(
    "faults", [pytest.param(faults, marks=pytest.mark.long if "interval" in faults else ()) for faults in PLANTED]
)
def test_a_planted_fault_is_found(faults: str, figures: Callable[[str], None]) -> None:
    wrong, setup = PLANTED[faults]

    found = explore(setup._replace(faults=frozenset(faults.split(", "))))

    assert wrong in found.wrong, str(found)
    figures(f"{found.wrong} after {len(found.trace)} steps, in {found.states:,} states")


def test_every_fault_is_planted() -> None:
    assert set(FAULTS) == {fault for faults in PLANTED for fault in faults.split(", ")}


TICK_US = CALLS
#: All that the model knows, at once. The horizon and the grace are those of workers.
STORM = Setup(
    lanes=((0,), (0, 1), (1,), (2, 0)),
    held=(6, 6, 4, 4),
    intervals=((3, 2), (4, 5), (5,)),
    bursts=(1, 3, 2),
    horizon=HORIZON_US // TICK_US,
    grace=2,
    slowest=5,
    step=7,
    events=Events(8, 3, 2, 2, 2),
)
#: In the scripts: the share of the grace by which a slot may be older, so that it is a tick; and one serial per call,
#: as on a real clock, where no two calls have the same microsecond. Here all calls of a tick have.
EDITS = {
    "local OLDEST = 0.3": f"local OLDEST = {STORM.age / STORM.grace}",
    "\n  seq = now_us\n": "\n  seq = now_us + redis.call('INCR', KEYS[1] .. ':calls')\n",
}


def edited() -> dict[str, str]:
    """The scripts, with these edits."""
    texts = dict(LANE_SOURCES)
    for old, new in EDITS.items():
        assert texts["reserve_lane"].count(old) == 1, "the Lua was edited: edit this as well"
        texts = {verb: text.replace(old, new) for verb, text in texts.items()}
    return texts


class Shadow:
    """Limits on a real server that go the way of the model's."""

    def __init__(self, client: redis.Redis, setup: Setup) -> None:
        self._lanes = Lanes(client, edited())
        self._setup = setup
        self._tick_us = NOW
        self._given: dict[tuple[int, int], LaneReservation] = {}

    def follow(self, step: Step, before: State) -> int:
        """Do what has happened in the model; returns how many answers were compared."""
        after = step.state
        if step.asked:
            self._reserve(step, before, *step.asked)
        elif step.arrived:
            self._take_back(step.arrived, before, after)
        elif step.kind == "time":
            self._tick_us += TICK_US
        elif after.left.step_back < before.left.step_back:
            self._tick_us -= self._setup.step * TICK_US
        elif after.left.step_forward < before.left.step_forward:
            self._tick_us += self._setup.step * TICK_US
        elif after.left.amnesia < before.left.amnesia:
            lost = [number for number, limit in enumerate(after.limits) if limit == Modelled()]
            self._lanes.lose(*(self._bucket(after, number) for number in lost))
        return int(bool(step.asked or step.arrived))

    def _bucket(self, state: State, number: int, interval: int = 0) -> Bucket:
        interval = interval or self._setup.intervals[number][state.changed[number]]
        limit = Limit(interval * TICK_US, 0, self._setup.bursts[number])
        return Bucket(f"limit-{number}", "smooth", limit, is_crossed=self._setup.is_crossed(number))

    def _ticks(self, instants_us: Iterable[int]) -> tuple[int, ...]:
        return tuple((us - self._tick_us) // TICK_US for us in instants_us)

    def _reserve(self, step: Step, before: State, lane: int, wanted: int) -> None:
        buckets = tuple(self._bucket(before, number) for number in self._setup.lanes[lane])
        answer = self._lanes.reserve(self._tick_us, buckets, wanted)
        new = step.state.hand[len(before.hand) :]
        slots = new[0].slots if new else ()
        assert self._ticks(answer.starts_us) == tuple(slot.start for slot in slots)
        assert self._ticks(answer.untils_us) == tuple(slot.until for slot in slots)
        assert [self._ticks(row) for row in answer.slots] == [slot.row for slot in slots]
        if new:
            self._given[lane, new[0].seq] = answer
        self._compare(step.state)

    def _take_back(self, sent: Reservation, before: State, after: State) -> None:
        given = self._given[sent.lane, sent.seq]
        given.used = given.count - len(sent.slots)
        numbers = self._setup.lanes[sent.lane]
        lane = tuple(self._bucket(before, number, interval) for number, interval in zip(numbers, sent.intervals))
        taken = self._lanes.give_back(lane, given)
        _, expected = take_back(self._setup, before.limits, numbers, sent.intervals, sent.seq, sent.rows)
        assert taken == [len(slots) for slots in expected]
        self._compare(after)

    def _compare(self, state: State) -> None:
        """S and the holes of each limit, but for those that are too old for any start."""
        for number, limit in enumerate(state.limits):
            bucket = self._bucket(state, number)
            fields = self._lanes.fields(bucket)[0]
            oldest = -self._setup.reach(number, limit.interval) - self._setup.age
            full = -self._setup.oldest(number) - max(self._setup.intervals[number])  # as full as if there were no S
            (last,) = self._ticks([int(fields["slot"])]) if fields else (None,)
            assert (last is None) == (limit.last is None)
            assert last is None or max(full, last) == max(full, limit.last or 0)
            holes = [us for us in self._ticks(self._lanes.holes(bucket)) if us >= oldest]
            # After a step back the next call forgets them all.
            assert limit.has_stepped or holes == [us for us in limit.holes if us >= oldest]


@pytest.mark.parametrize("walks", [4, pytest.param(100, marks=pytest.mark.long)])
def test_the_scripts_answer_as_the_model_does(
    redis_client: redis.Redis, figures: Callable[[str], None], walks: int
) -> None:
    """Ways through the model, drawn at random: the same slots, and the same S and holes afterwards."""
    model = Model(STORM)
    compared = 0
    for seed in range(walks):
        redis_client.flushdb()
        draw, shadow = random.Random(seed), Shadow(redis_client, STORM)
        (state,) = model.starts()
        while state.judge.starts < STORM.tasks:
            step = draw.choice(list(model.steps(state)))
            compared += shadow.follow(step, state)
            state = step.state

    assert compared > 50 * walks
    figures(f"{compared:,} answers")
