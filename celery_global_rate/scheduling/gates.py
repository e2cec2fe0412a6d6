"""Where the lanes of a worker wait for a limit that they share: one after the other, not each for itself."""

from __future__ import annotations

from collections.abc import Iterable

from ..limits.bucket import Bucket
from ..limits.timing import HORIZON_S
from .agenda import Agenda
from .lane import Lane
from .ordered import Ordered

#: After lanes were let through, the next ones follow this much later, in seconds, unless an answer closes the gate.
FOLLOW_S = 0.02


class Gate:
    """One shared limit, and the lanes that wait for it: the longest wait first.

    Attributes:
        bucket: of the limit.
        workers: that wait there, this one among them, by the last answer.
        waiting: the lanes.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.workers = 1
        self.waiting = Ordered()

    @property
    def share(self) -> int:
        """The slots that this worker may expect within the horizon, twice over: at most so many are given to it.

        Those of a fixed window come all at once, and so do refills.
        """
        limit = self.bucket.limit
        has_edges = limit.window and limit.window.has_edges
        expected = limit.burst if has_edges else 2 * HORIZON_S / limit.interval_s
        return max(1, int(expected / self.workers))


class Gates:
    """The gates that are closed.

    Without them, each of some hundred lanes would ask for slots that one of them can have.
    """

    def __init__(self) -> None:
        self._gates: dict[tuple[str, str], Gate] = {}
        self._agenda: Agenda[Gate] = Agenda()
        #: Where each lane waits.
        self._gate_of: dict[Lane, Gate] = {}

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._gate_of

    @property
    def next_at(self) -> float:
        """When the next one opens, in monotonic seconds; or infinity."""
        return self._agenda.next_at

    def close(self, lane: Lane, until: float) -> None:
        """By the answer to a lane, the limit that binds it has no slot before a monotonic instant."""
        bucket = lane.binding
        assert bucket is not None
        if (gate := self._gates.get(bucket.place)) is None:
            gate = self._gates[bucket.place] = Gate(bucket)
        gate.bucket, gate.workers = bucket, lane.waiting
        self._agenda.set(gate, until)

    def reopen(self, buckets: Iterable[Bucket], now: float) -> None:
        """These have other limits now, or slots that were given back: whoever waits for them may ask soon."""
        for bucket in buckets:
            if gate := self._gates.get(bucket.place):
                self._agenda.set(gate, now)

    def keep(self, lane: Lane) -> bool:
        """Whether a lane that wants slots has to wait.

        It waits at the limit that has stopped it. Elsewhere it would take the turn of others, and get nothing.
        Where the others could all be let through at once, only those do whom this limit has stopped before: a lane with
        a slower limit of its own asks when that has a slot, or it would lose it.
        """
        gates = [gate for bucket in lane.waits_at if (gate := self._gates.get(bucket.place))]
        stopped_at = lane.binding and lane.binding.place
        gate = next((it for it in gates if it.bucket.place == stopped_at), None)
        gate = gate or next((it for it in gates if len(it.waiting) >= it.share), None)
        if gate is None:
            self.leave(lane)
            return False
        if self._gate_of.get(lane) is not gate:
            self.leave(lane)
            self._gate_of[lane] = gate
        gate.waiting.put(lane, lane.waiting_since)
        return True

    def leave(self, lane: Lane) -> None:
        """A lane does not wait any more."""
        if gate := self._gate_of.pop(lane, None):
            gate.waiting.discard(lane)

    def open_due(self, now: float) -> list[Lane]:
        """The lanes that may ask now: of each gate that is due, those that have waited longest, one slot each.

        A gate where more of them wait stays closed for them until those have asked.
        """
        through: list[Lane] = []
        for gate in self._agenda.due(now):
            lanes = gate.waiting.first(gate.share)
            for lane in lanes:
                self.leave(lane)
                lane.most_wanted = max(1, gate.share // len(lanes))
            through += lanes
            if gate.waiting:
                self._agenda.set(gate, now + FOLLOW_S)
            else:
                del self._gates[gate.bucket.place]
        return through

    def clear(self) -> None:
        """Nobody waits any more."""
        self._gates.clear()
        self._agenda.clear()
        self._gate_of.clear()
