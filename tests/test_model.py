"""The protocol, explored: everything that small clusters can go through, and that errors in it are found."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.reservation import Reservation

from .model.bucket import next_slot
from .model.explorer import Exploration, Explorer
from .model.machine import Model
from .model.setup import FAULTS, Events, Setup
from .model.state import Answer, Call, GiveBack, Redis, State
from .storage.replay import NAME, NOW, Bucket

#: A quick network: an answer takes a tick at the most, and is late then.
QUICK = Setup(timeout=0, slowest=1)
#: One where a call and its answer may take a tick each, so that a worker's view of the Redis clock is off by one.
SLOW = Setup(tasks=2)

CLUSTERS = {
    "nothing goes wrong": QUICK,
    "burst": QUICK._replace(burst=2),
    "slow network": SLOW,
    "slots further apart than the horizon": QUICK._replace(intervals=(4,), horizon=3),
    "slots closer together than ticks of the grace": QUICK._replace(intervals=(1,), grace=2),
    "a worker is killed": QUICK._replace(events=Events(crash=1)),
    "a message is lost": QUICK._replace(events=Events(lost=1)),
    "a slower limit is set": QUICK._replace(tasks=2, intervals=(1, 2), events=Events(override=1)),
    "a faster limit is set": QUICK._replace(tasks=2, intervals=(2, 1), events=Events(override=1)),
    "Redis loses its memory": QUICK._replace(tasks=2, events=Events(amnesia=1)),
    "Redis' clock steps back": QUICK._replace(tasks=2, events=Events(step_back=1)),
    "Redis' clock steps forward": QUICK._replace(tasks=2, events=Events(step_forward=1)),
    "an outage": QUICK._replace(tasks=2, intervals=(1,), events=Events(cut=1)),
    "an outage, with a burst": QUICK._replace(workers=1, tasks=4, burst=3, events=Events(cut=1)),
}

LARGER = {
    "three tasks on a slow network": SLOW._replace(tasks=3),
    "three workers": QUICK._replace(workers=3),
    "four tasks": QUICK._replace(tasks=4, burst=2, intervals=(1,)),
    "a worker is killed on a slow network": SLOW._replace(events=Events(crash=1)),
    "a message is lost on a slow network": SLOW._replace(events=Events(lost=1)),
    "killed, lost": QUICK._replace(events=Events(crash=1, lost=1)),
    "an override, and memory lost": QUICK._replace(tasks=2, intervals=(1, 2), events=Events(override=1, amnesia=1)),
    "an override, and a worker killed": QUICK._replace(tasks=2, intervals=(1, 2), events=Events(override=1, crash=1)),
    "a slower limit, three tasks": QUICK._replace(intervals=(1, 2), events=Events(override=1)),
    "memory lost, three tasks": QUICK._replace(events=Events(amnesia=1)),
    "memory lost twice": QUICK._replace(tasks=2, events=Events(amnesia=2)),
    "memory lost, and a worker killed": QUICK._replace(tasks=2, events=Events(amnesia=1, crash=1)),
    "the clock steps both ways": QUICK._replace(tasks=2, events=Events(step_back=1, step_forward=1)),
    "the clock steps back, and a worker is killed": QUICK._replace(tasks=2, events=Events(step_back=1, crash=1)),
    "an outage, three tasks": QUICK._replace(events=Events(cut=1)),
    "an outage, two workers, a burst": QUICK._replace(intervals=(1,), burst=2, events=Events(cut=1)),
    "an outage, and a worker killed": QUICK._replace(tasks=2, intervals=(1,), events=Events(cut=1, crash=1)),
    "an outage, and memory lost": QUICK._replace(tasks=2, intervals=(1,), events=Events(cut=1, amnesia=1)),
}

STARTS, TWICE, LATE = "a window holds too many starts", "used twice", "used outside its time"
STALLS, LOST, NEVER = "the bucket stalls", "are lost with a worker", "never started"
BACK, SOLO = "the return from an outage brings too many starts", "a worker that is cut off starts too many"

SHARP = QUICK._replace(grace=0)  # with D + R = 0 no start too many hides in the grace
ALONE = QUICK._replace(workers=1, tasks=1)
OVERRIDE = QUICK._replace(tasks=2, intervals=(1, 2), events=Events(override=1))
#: Per fault: what is wrong with it, and where.
PLANTED = {
    "serial unchecked": (TWICE, SHARP),
    "serial restarted": (TWICE, SHARP._replace(events=Events(amnesia=1))),
    "give-back twice, serial unmoved": (STARTS, SHARP),
    "late answer used": (LATE, SLOW),
    "late answer kept": (STARTS, QUICK),
    "early": (LATE, SLOW),
    "no second look": (LATE, QUICK),
    "clipped": (TWICE, QUICK),
    "beyond the horizon": (LOST, QUICK._replace(tasks=4, events=Events(crash=1))),
    "step unseen": (STALLS, QUICK._replace(tasks=2, events=Events(step_back=1))),
    "lower override": (STARTS, OVERRIDE),
    "override ignored": (STARTS, OVERRIDE),
    "slots kept": (TWICE, OVERRIDE._replace(intervals=(2, 1))),
    "held dropped": (NEVER, OVERRIDE._replace(workers=1)),
    "missed not renewed": (NEVER, ALONE),
    "waits forever": (NEVER, ALONE._replace(events=Events(lost=1))),
    "no floor": (BACK, ALONE._replace(tasks=4, burst=3, events=Events(cut=1))),
    "floor forgotten": (BACK, ALONE._replace(tasks=4, intervals=(2, 2), burst=3, events=Events(override=1, cut=1))),
    "share too large": (SOLO, QUICK._replace(intervals=(1,), events=Events(cut=1))),
}


def explore(setup: Setup) -> Exploration:
    return Explorer(Model(setup)).explore()


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_promises_hold(name: str, figures: Callable[[str], None]) -> None:
    found = explore(CLUSTERS[name])

    assert not found.wrong, str(found)
    figures(f"{found.states:,} states; at the latest {found.longest} ticks to the last start")


@pytest.mark.long
@pytest.mark.parametrize("name", LARGER)
def test_the_promises_hold_in_larger_clusters(name: str, figures: Callable[[str], None]) -> None:
    found = explore(LARGER[name])

    assert not found.wrong, str(found)
    figures(f"{found.states:,} states; at the latest {found.longest} ticks to the last start")


@pytest.mark.parametrize("faults", PLANTED)
def test_a_planted_fault_is_found(faults: str, figures: Callable[[str], None]) -> None:
    wrong, setup = PLANTED[faults]

    found = explore(setup._replace(faults=frozenset(faults.split(", "))))

    assert wrong in found.wrong, str(found)
    figures(f"{found.wrong} after {len(found.trace)} steps, in {found.states:,} states")


def test_every_fault_is_planted() -> None:
    assert set(FAULTS) == {fault for faults in PLANTED for fault in faults.split(", ")}


@pytest.mark.parametrize("fault", ["give-back twice", "serial unmoved"])
def test_a_give_back_that_is_sent_twice_meets_another_serial(fault: str) -> None:
    """Either is harmless without the other."""
    assert not explore(SHARP._replace(faults=frozenset({fault}))).wrong


TICK_US = 10_000
#: All that the model knows, at once.
STORM = Setup(3, 12, (3, 1, 2), 3, horizon=4, slowest=3, silence=4, events=Events(3, 3, 2, 2, 2, 2, 2))


class Shadow:
    """A bucket on a real server that goes the way of the model's.

    A microsecond passes with each call, as on a real clock, where no two bookings have the same serial.
    """

    def __init__(self, bucket: Bucket, setup: Setup) -> None:
        bucket.horizon_us = setup.horizon * TICK_US
        self._bucket = bucket
        self._setup = setup
        self._tick_us, self._calls = NOW, 0
        self._booked: dict[int, Reservation] = {}

    def follow(self, kind: str, before: State, after: State) -> int:
        """Do what has happened in the model; returns how many answers were compared."""
        setup = self._setup
        if kind == "time":
            self._tick_us += TICK_US
        elif after.left.step_back < before.left.step_back:
            self._tick_us -= setup.step * TICK_US
        elif after.left.step_forward < before.left.step_forward:
            self._tick_us += setup.step * TICK_US
        elif after.left.amnesia < before.left.amnesia:
            self._bucket.client.flushdb()
        elif after.left.override < before.left.override:
            self._bucket.keep({NAME: override(after.redis.version)})
        elif kind == "prompt":
            for one, other in zip(before.workers, after.workers):
                if one.call and other.call and not one.call.answer and other.call.answer:
                    self._reserve(before.redis, one.call, other.call.answer)
                    return 1
                if len(one.returning) > len(other.returning):
                    arrived = [sent for sent in one.returning if sent not in other.returning]
                    self._take_back(arrived[0], before.redis != after.redis)
                    return 1
        return 0

    def _reserve(self, redis: Redis, call: Call, expected: Answer) -> None:
        setup = self._setup
        # A burst of 1 is what a floor at this moment is.
        limit = Limit(setup.intervals[call.version] * TICK_US, 0, 1 if call.has_floor else setup.burst)
        answer = self._bucket.reserve(self._now_us, limit, call.wanted, override=override(call.version))
        assert override(expected.version) == answer.override

        if expected.version:
            return
        _, first = next_slot(self._setup, redis, call)
        slots = expected.reserved.slots if expected.reserved else ()
        assert (first, len(slots)) == ((answer.first_us - self._tick_us) // TICK_US, answer.count)

        if expected.reserved:
            self._booked[expected.reserved.seq] = answer

    def _take_back(self, sent: GiveBack, is_free: bool) -> None:
        booked = self._booked[sent.seq]
        booked.used = booked.count - sent.slots
        assert is_free == self._bucket.give_back(self._now_us, booked)

    @property
    def _now_us(self) -> int:
        self._calls += 1
        return self._tick_us + self._calls


def override(version: int) -> str:
    """As Redis keeps it."""
    return f"{version}:a:0:{{}}" if version else ""


def test_the_scripts_answer_as_the_model_does(bucket: Bucket, figures: Callable[[str], None]) -> None:
    """Ways through the model, drawn at random."""
    model = Model(STORM)
    compared = 0
    for seed in range(60):
        bucket.client.flushdb()
        draw, shadow = random.Random(seed), Shadow(bucket, STORM)
        state = draw.choice(list(model.starts()))
        while state.judge.starts < STORM.tasks:
            step = draw.choice(list(model.steps(state)))
            compared += shadow.follow(step.kind, state, step.state)
            state = step.state

    assert compared > 1000
    figures(f"{compared:,} answers")
