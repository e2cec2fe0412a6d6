"""What tells one state from another."""

from __future__ import annotations

from collections.abc import Hashable

from .setup import Setup
from .state import State, Worker

#: If one of these is planted, a serial that has passed may count again.
SERIAL_FAULTS = {"serial unchecked", "serial unmoved", "serial restarted"}


def key(state: State, setup: Setup) -> Hashable:
    """The same for states that differ in nothing that matters: in the names of workers, in serials, in what is past."""
    last, lead, seq, version = state.redis
    rank = {seq: 0}
    if setup.faults & SERIAL_FAULTS:
        seqs = {reserved.seq for worker in state.workers for reserved in worker.reservations}
        seqs.update([sent.seq for worker in state.workers for sent in worker.returning])
        rank = {serial: place for place, serial in enumerate(sorted({seq, *seqs}))}
    may_get = bool(state.queue or state.left.crash)
    workers = sorted([relevant(worker, rank, setup, may_get) for worker in state.workers], key=hash)
    if last is not None:
        last = max(last, -setup.burst * max(setup.intervals) - setup.step * state.left.step_back)
        if not state.left.step_back and last <= lead:
            lead = 0
    return last, lead, rank[seq], version, tuple(workers), state.queue, state.left, state.judge


def relevant(worker: Worker, rank: dict[int, int], setup: Setup, may_get: bool) -> tuple[object, ...]:
    """All of a worker that it may use yet, with other serials in the same order."""
    held, version, hand, call, has_asked, low, high, returning, is_cut, alone = worker
    seqs = [rank.get(reserved.seq) for reserved in worker.reservations]
    bare = tuple([(slots, due, interval, era) for slots, due, interval, _, era in hand])
    sent = tuple(sorted([(count, interval, rank[seq], age) for count, interval, seq, age in returning if seq in rank]))
    if call and call.answer and call.answer.reserved:
        call = call._replace(answer=call.answer._replace(reserved=call.answer.reserved._replace(seq=0)))
    if not held and not may_get:
        low, has_asked, alone = 0, False, alone and 0
    if not (setup.events.step_back or setup.events.step_forward or "early" in setup.faults):
        high = 0
    return held, version, bare, tuple(seqs), call, has_asked, low, high, sent, is_cut, alone
