"""The benchmark against other limiters: it runs, and counts what it says."""

from __future__ import annotations

import pytest

from benchmarks.peers.environments import PEERS
from benchmarks.peers.figures import grid
from benchmarks.peers.run import RATE, fullest_second, run


def test_the_fullest_second_is_found() -> None:
    assert fullest_second([]) == 0
    assert fullest_second([0.0, 0.5, 0.999, 1.0, 1.4]) == 4
    assert fullest_second([2.0, 0.0, 1.0]) == 1


@pytest.mark.long
def test_it_counts_starts_retries_and_what_is_lost() -> None:
    """Four seconds, whatever the figures: a counter retries, no limit here does, and no task is lost."""
    peers = {peer.app: peer for peer in PEERS}
    counter, ours = (run(peers[name], 4.0) for name in ("counter", "ours"))

    assert counter.retries > 0 == ours.retries
    assert ours.lost == 0
    assert RATE / 2 < ours.most < 2 * RATE
    assert ours.free_left[1] == 0
    assert min(ours.share, ours.cpu_ms, ours.limiter_calls, counter.share) > 0.1
    assert len(grid([counter.as_dict(), ours.as_dict()]).splitlines()) == 6
