"""What each lane of a worker waits for: an instant, a process, a slot, or a look."""

from __future__ import annotations

from .agenda import Agenda
from .gates import Gates
from .lane import Lane
from .ordered import Ordered
from .totals import Share, Totals


class Lists:
    """The lanes by what they wait for, so that a turn finds those that it concerns without a look at the others.

    Attributes:
        busy: all that hold something or wait for an answer.
        touched: something has happened to these. One leaves only when it has been looked at.
        ready: these have a due slot, or no limit any more, and wait for a process.
        askers: these want slots and have no call under way: the longest wait first.
        in_hand: these have slots in hand, due or not.
        claimants: by the next slot: for these a process may have to be kept.
        gates: where those that want slots wait for others that want them as well.
        agenda: when something is due for a lane.
        totals: over all of them.
    """

    def __init__(self) -> None:
        self.busy: dict[Lane, None] = {}
        self.touched: dict[Lane, None] = {}
        self.ready: dict[Lane, None] = {}
        self.in_hand: dict[Lane, None] = {}
        self.askers = Ordered()
        self.claimants = Ordered()
        self.agenda: Agenda[Lane] = Agenda()
        self.gates = Gates()
        self.totals = Totals()

    @property
    def is_alone(self) -> bool:
        """Whether one lane is busy, and no other."""
        return len(self.busy) == 1

    @property
    def to_look_at(self) -> list[Lane]:
        """Those that may have something to do, the longest wait first."""
        return sorted({**self.ready, **self.touched}, key=lambda lane: lane.waiting_since)

    def is_in_line(self, lane: Lane) -> bool:
        """Whether a lane waits with others until it may ask for slots: one more request makes no difference to it."""
        return not self.is_alone and (lane in self.askers or lane in self.gates)

    def touch_due(self, now: float) -> bool:
        """Something is due for these: a look, or their turn at a gate. Returns whether there was such a turn."""
        for lane in self.agenda.due(now):
            self.touched[lane] = None
        through = self.gates.open_due(now)
        for lane in through:
            self.askers.put(lane, lane.waiting_since)
        return bool(through)

    def put(self, lane: Lane, now: float, is_ready: bool, next_at: float) -> bool:
        """Put a lane where it belongs.

        Args:
            lane: after a look.
            now: monotonic seconds.
            is_ready: whether it waits for a process.
            next_at: the monotonic instant at which something is due for it.

        Returns:
            Whether it wants slots, and did not before.
        """
        if is_ready:
            self.ready[lane] = None
        else:
            self.ready.pop(lane, None)
        in_hand = lane.in_hand
        unprovided = len(lane.held) - in_hand if lane.limit else 0
        if in_hand:
            self.in_hand[lane] = None
        else:
            self.in_hand.pop(lane, None)
        if lane.limit and lane.first_us and (in_hand or unprovided > 0):
            self.claimants.put(lane, lane.first_us)
        else:
            self.claimants.discard(lane)
        self.count(lane)
        self.agenda.set(lane, next_at)
        if lane.call is not None or now < lane.ask_at or unprovided <= 0:
            self.askers.discard(lane)
            self.gates.leave(lane)
            return False
        is_new = lane not in self.askers
        if is_new and self.gates.keep(lane):
            return False
        self.askers.put(lane, lane.waiting_since)
        return is_new

    def leave_alone(self, lane: Lane, until: float) -> None:
        """After an error, let a lane wait for nothing but a monotonic instant."""
        self._take_out(lane)
        self.count(lane)
        self.agenda.set(lane, until)

    def drop(self, lane: Lane) -> None:
        """A lane waits for nothing any more."""
        self.busy.pop(lane, None)
        self._take_out(lane)
        self.agenda.drop(lane)
        self.totals.drop(lane)

    def clear(self) -> list[Lane]:
        """Drop all of them; returns those that were busy."""
        lanes = list(self.busy)
        for each in (self.busy, self.touched, self.ready, self.in_hand, self.agenda, self.totals, self.gates):
            each.clear()
        self.askers.clear()
        self.claimants.clear()
        return lanes

    def count(self, lane: Lane) -> None:
        """Bring the totals up to date."""
        held, waiting = lane.held_count, len(lane.held) if lane.limit else 0
        share = Share(held, min(held, lane.most_covered), lane.committed, waiting, int(not lane.is_far))
        self.totals.put(lane, share)

    def count_one_more(self, lane: Lane) -> None:
        """The same, if nothing has happened but that a lane with a limit holds one request more."""
        before = self.totals[lane]
        held = before.held + 1
        covered = min(held, lane.most_covered)
        self.totals.put(lane, Share(held, covered, before.committed, before.waiting + 1, before.near))

    def _take_out(self, lane: Lane) -> None:
        self.touched.pop(lane, None)
        self.ready.pop(lane, None)
        self.in_hand.pop(lane, None)
        self.askers.discard(lane)
        self.gates.leave(lane)
        self.claimants.discard(lane)
