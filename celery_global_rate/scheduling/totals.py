"""What all lanes of a worker have between them: kept up to date with each change, and never added up anew."""

from __future__ import annotations

from typing import NamedTuple

from .lane import Lane


class Share(NamedTuple):
    """What one lane adds.

    Attributes:
        held: requests that are held.
        covered: those of them that need their own prefetch slot.
        committed: slots in hand and asked for.
        waiting: held requests that wait for a slot.
        near: 1 if its limit is within reach, else 0.
    """

    held: int
    covered: int
    committed: int
    waiting: int
    near: int


NOTHING = Share(0, 0, 0, 0, 0)


class Totals:
    """The sums over all lanes."""

    def __init__(self) -> None:
        self._shares: dict[Lane, Share] = {}
        self.clear()

    def __getitem__(self, lane: Lane) -> Share:
        """What a lane adds now."""
        return self._shares.get(lane, NOTHING)

    def put(self, lane: Lane, share: Share) -> None:
        """Let a lane add this, in place of what it added before."""
        before = self._shares.get(lane, NOTHING)
        if share == before:
            return
        self._shares[lane] = share
        self.held += share.held - before.held
        self.covered += share.covered - before.covered
        self.committed += share.committed - before.committed
        self.waiting += share.waiting - before.waiting
        self.near += share.near - before.near

    def drop(self, lane: Lane) -> None:
        """Let a lane add nothing."""
        self.put(lane, NOTHING)
        self._shares.pop(lane, None)

    def clear(self) -> None:
        """Let none add anything."""
        self._shares.clear()
        self.held = self.covered = self.committed = self.waiting = self.near = 0
