"""What each bucket of a worker waits for: an instant, a process, a slot, or a look."""

from __future__ import annotations

from .agenda import Agenda
from .bucket import Bucket
from .ordered import Ordered
from .totals import Share, Totals


class Lists:
    """The buckets by what they wait for, so that a turn finds those that it concerns without a look at the others.

    Attributes:
        busy: all that hold something or wait for an answer, by their names.
        touched: something has happened to these. One leaves only when it has been looked at.
        ready: these have a due slot, or no limit any more, and wait for a process.
        askers: these want slots and have no call under way: the longest wait first.
        in_hand: these have slots in hand, due or not.
        claimants: by the next slot: for these a process may have to be kept.
        agenda: when something is due for a bucket.
        totals: over all of them.
    """

    def __init__(self) -> None:
        self.busy: dict[str, Bucket] = {}
        self.touched: dict[Bucket, None] = {}
        self.ready: dict[Bucket, None] = {}
        self.in_hand: dict[Bucket, None] = {}
        self.askers = Ordered()
        self.claimants = Ordered()
        self.agenda: Agenda[Bucket] = Agenda()
        self.totals = Totals()

    @property
    def to_look_at(self) -> list[Bucket]:
        """Those that may have something to do, the longest wait first."""
        return sorted({**self.ready, **self.touched}, key=lambda bucket: bucket.waiting_since)

    def touch_due(self, now: float) -> None:
        """Something is due for these."""
        for bucket in self.agenda.due(now):
            self.touched[bucket] = None

    def put(self, bucket: Bucket, now: float, is_ready: bool, next_at: float) -> bool:
        """Put a bucket where it belongs.

        Args:
            bucket: after a look.
            now: monotonic seconds.
            is_ready: whether it waits for a process.
            next_at: the monotonic instant at which something is due for it.

        Returns:
            Whether it wants slots, and did not before.
        """
        if is_ready:
            self.ready[bucket] = None
        else:
            self.ready.pop(bucket, None)
        in_hand, unprovided = bucket.in_hand, bucket.unprovided
        if in_hand:
            self.in_hand[bucket] = None
        else:
            self.in_hand.pop(bucket, None)
        if bucket.limit and bucket.first_us and (in_hand or unprovided > 0):
            self.claimants.put(bucket, bucket.first_us)
        else:
            self.claimants.discard(bucket)
        self.count(bucket)
        self.agenda.set(bucket, next_at)
        if bucket.call is not None or now < bucket.ask_at or unprovided <= 0:
            self.askers.discard(bucket)
            return False
        is_new = bucket not in self.askers
        self.askers.put(bucket, bucket.waiting_since)
        return is_new

    def leave_alone(self, bucket: Bucket, until: float) -> None:
        """After an error, let a bucket wait for nothing but a monotonic instant."""
        self._take_out(bucket)
        self.count(bucket)
        self.agenda.set(bucket, until)

    def drop(self, bucket: Bucket) -> None:
        """A bucket waits for nothing any more."""
        self.busy.pop(bucket.name, None)
        self._take_out(bucket)
        self.agenda.drop(bucket)
        self.totals.drop(bucket)

    def clear(self) -> list[Bucket]:
        """Drop all of them; returns those that were busy."""
        buckets = list(self.busy.values())
        for each in (self.busy, self.touched, self.ready, self.in_hand, self.agenda, self.totals):
            each.clear()
        self.askers.clear()
        self.claimants.clear()
        return buckets

    def count(self, bucket: Bucket) -> None:
        """Bring the totals up to date."""
        held, waiting = bucket.held_count, len(bucket.held) if bucket.limit else 0
        share = Share(held, min(held, bucket.most_covered), bucket.committed, waiting, int(not bucket.is_far))
        self.totals.put(bucket, share)

    def count_one_more(self, bucket: Bucket) -> None:
        """The same, if nothing has happened but that a bucket with a limit holds one request more."""
        before = self.totals[bucket]
        held = before.held + 1
        covered = min(held, bucket.most_covered)
        self.totals.put(bucket, Share(held, covered, before.committed, before.waiting + 1, before.near))

    def _take_out(self, bucket: Bucket) -> None:
        self.touched.pop(bucket, None)
        self.ready.pop(bucket, None)
        self.in_hand.pop(bucket, None)
        self.askers.discard(bucket)
        self.claimants.discard(bucket)
