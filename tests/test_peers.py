"""The benchmark against other limiters: it runs, and counts what it says."""

from __future__ import annotations

import pytest

from benchmarks.peers import calls
from benchmarks.peers.environments import LIMITERS, PEERS
from benchmarks.peers.figures import grid, limiters_page
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


def test_turns_are_counted_from_the_begin_of_the_watch_to_its_end() -> None:
    """Of two processes, watched for 10 s: each has 64 turns a second, one before and after as well, one from 4 s on."""
    evenly = [number / 64 for number in range(-100, 700)]
    found = [{"turns": evenly, "cpu_s": 0.3}, {"turns": [at + 1 / 128 for at in evenly if at >= 4], "cpu_s": 0.724}]
    seen = calls.figures(LIMITERS[0], 1, found, 2048, 5120, 0.0, 10.0)

    assert seen.share == pytest.approx(1024 / (10 * RATE))
    assert seen.most == 128
    assert seen.longest_s == 1 / 64
    assert seen.least == 0.75
    assert (seen.sent, seen.commands) == (2, 5)
    assert seen.cpu_ms == pytest.approx(1)


@pytest.mark.long
@pytest.mark.parametrize("callers", calls.LOADS)
def test_processes_that_are_no_workers_share_a_rate(callers: int) -> None:
    """Three seconds here, by threads and by tasks; each process has turns."""
    ours = [peer for peer in LIMITERS if peer.app.startswith("ours")]
    found = [calls.run(peer, callers, 3.0) for peer in ours]

    assert len(found) == 2
    for figures in found:
        assert 0.98 <= figures.share <= 1.005
        assert figures.most <= RATE + 4  # b + (w + D + R)/T, less a start
        assert figures.least > 0.5
        assert 0 < figures.sent <= 2 < figures.commands
        assert 0 < figures.cpu_ms < 10


def test_what_is_measured_of_libraries_is_a_table_for_each_load() -> None:
    peer, machine = LIMITERS[0], dict.fromkeys(("cores", "processor", "python", "redis", "server"), "x")
    found = [
        calls.figures(peer, count, [{"turns": [0.5], "cpu_s": 0.1}], 1, 2, 0, 1).as_dict() for count in calls.LOADS
    ]
    page = limiters_page({"machine": machine, "limiters": found})

    assert page.count(peer.title) == len(calls.LOADS)
    assert "limits 5.8.0" in page
