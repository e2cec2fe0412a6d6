"""What a cluster is like, what may go wrong in it, and which errors are planted."""

from __future__ import annotations

from typing import NamedTuple

#: Errors that can be planted, and what they are.
FAULTS = {
    "serial unchecked": "a give-back does not look whether somebody has booked since",
    "serial unmoved": "a give-back leaves the serial as it was",
    "give-back twice": "a give-back is sent twice",
    "serial restarted": "the serial begins again when Redis loses its memory",
    "late answer used": "an answer that comes after the timeout is used, its clock too",
    "late answer kept": "an answer that comes after the timeout is given back and used",
    "early": "a slot is used when Redis' clock may have reached it, not when it surely has",
    "no second look": "a slot is used without a look at the clock after a stop",
    "clipped": "the last slot counts as no later than now",
    "beyond the horizon": "slots are given out however far ahead they lie",
    "step unseen": "Redis does not see that its clock stepped back",
    "lower override": "Redis keeps the override of the last caller, even a lower one",
    "override ignored": "a caller gets slots of its own limit, whatever override is set",
    "slots kept": "slots are given back at a change of the limit, and used all the same",
    "held dropped": "a change of the limit forgets what is held",
    "missed not renewed": "a slot that was missed counts as in hand forever",
    "waits forever": "a call whose answer was lost is waited for",
    "floor forgotten": "after an outage an answer with an override ends the time for a floor",
    "no floor": "after an outage the bucket has saved its burst",
    "share too large": "a worker that is cut off counts one worker too few",
}


class Events(NamedTuple):
    """How often each thing may go wrong."""

    crash: int = 0
    lost: int = 0
    override: int = 0
    amnesia: int = 0
    cut: int = 0
    step_back: int = 0
    step_forward: int = 0


class Setup(NamedTuple):
    """What a cluster is like. Times in ticks.

    Attributes:
        workers: how many.
        tasks: how many are held at the start, by any of the workers.
        intervals: T of the declared limit, and of the overrides that are set one after the other.
        burst: slots in a full bucket.
        horizon: H, how far ahead slots are given out.
        grace: D, how long after its instant a slot may be used.
        timeout: after it an answer is not used.
        slowest: a call and its answer take no longer than this together, or are lost.
        silence: after so long without an answer a worker goes on by itself.
        step: how far the clock of Redis is stepped.
        events: what may go wrong.
        faults: what is planted.
    """

    workers: int = 2
    tasks: int = 3
    intervals: tuple[int, ...] = (2,)
    burst: int = 1
    horizon: int = 2
    grace: int = 1
    timeout: int = 1
    slowest: int = 2
    silence: int = 3
    step: int = 3
    events: Events = Events()
    faults: frozenset[str] = frozenset()
