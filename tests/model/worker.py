"""What a worker does with what it hears, and with its slots."""

from __future__ import annotations

from .setup import Setup
from .state import Answer, Call, GiveBack, Reservation, Worker


def read(setup: Setup, worker: Worker, call: Call, answer: Answer) -> Worker:
    """Take an answer in; what comes too late, or for another limit, is given back."""
    worker = worker._replace(call=None)
    reserved = answer.reserved
    is_late = call.age > setup.timeout or call.is_void
    if is_late and "late answer used" not in setup.faults:
        if reserved is None:
            return worker
        hand = (*worker.hand, reserved) if "late answer kept" in setup.faults else worker.hand
        return give_back(setup, worker._replace(hand=hand), reserved)
    # At `answer.now` Redis had the call, which was sent `age` ago: that is how long it may have been on its way back.
    low, high = max(worker.low, answer.now), min(worker.high, answer.now + call.age)
    if low > high:  # a clock was stepped
        low, high = answer.now, answer.now + call.age
    worker = worker._replace(low=low, high=high)
    if answer.version:  # and no word of slots: the floor is still to be set
        alone = None if "floor forgotten" in setup.faults else worker.alone
        return learn(setup, worker, answer.version)._replace(has_asked=False, alone=alone)
    hand = (*worker.hand, reserved) if reserved else worker.hand
    return worker._replace(hand=hand, alone=None)


def learn(setup: Setup, worker: Worker, version: int) -> Worker:
    """Another limit: slots go back, what is held follows."""
    if version <= worker.version:
        return worker
    for reserved in worker.hand:
        worker = give_back(setup, worker, reserved)
    hand = worker.hand if "slots kept" in setup.faults else ()
    held = 0 if "held dropped" in setup.faults else worker.held
    call = worker.call and worker.call._replace(is_void=True)
    return worker._replace(version=version, hand=hand, held=held, call=call)


def give_back(setup: Setup, worker: Worker, reserved: Reservation) -> Worker:
    """Send the unused tail of a reservation back."""
    sent = (GiveBack(len(reserved.slots), reserved.interval, reserved.seq),)
    return worker._replace(returning=worker.returning + sent * (2 if "give-back twice" in setup.faults else 1))


def late(worker: Worker, reserved: Reservation) -> int:
    """How long ago the next slot was surely due."""
    return worker.low - max(reserved.slots[0], reserved.due)


def may_use(setup: Setup, worker: Worker, reserved: Reservation) -> bool:
    """Whether the next slot has surely come, and its grace is not over."""
    ago = late(worker, reserved)
    has_come = ago + worker.high - worker.low >= 0 if "early" in setup.faults else ago >= 0
    return has_come and (ago <= setup.grace or "no second look" in setup.faults)


def pace(setup: Setup, worker: Worker) -> int:
    """The time between two starts of a worker that goes on alone."""
    believed = setup.workers - ("share too large" in setup.faults)
    return believed * setup.intervals[worker.version]


def aged(setup: Setup, worker: Worker) -> Worker:
    """A tick later."""
    call = worker.call and worker.call.moved(-1)
    return worker._replace(
        hand=still_useful(setup, worker, [reserved.moved(-1) for reserved in worker.hand]),
        call=call and call._replace(age=min(call.age + 1, setup.silence)),
        has_asked=False,
        returning=tuple([sent._replace(age=sent.age + 1) for sent in worker.returning if sent.age < setup.slowest]),
        alone=worker.alone and worker.alone - 1,
    )


def still_useful(setup: Setup, worker: Worker, hand: list[Reservation]) -> tuple[Reservation, ...]:
    """What is left when missed slots are gone: those too late, and those of before a clock stepped back."""
    if setup.faults & {"missed not renewed", "no second look"}:
        return tuple(hand)
    left = []
    for reserved in hand:
        while reserved.slots and not -2 * setup.horizon <= late(worker, reserved) <= setup.grace:
            reserved = reserved.rest
        if reserved.slots:
            left.append(reserved)
    return tuple(left)


def cut_off(worker: Worker) -> Worker:
    """Nothing comes or goes any more, and what was under way is lost. The worker does not know."""
    return worker._replace(is_cut=True, call=worker.call and gone(worker.call), returning=())


def gone(call: Call) -> Call:
    """Whether it was lost before Redis had it or after: there is no answer."""
    return call._replace(is_gone=True, answer=None)
