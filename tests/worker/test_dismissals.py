"""Revoked and expired tasks whose result backend is away or slow, in virtual time."""

from __future__ import annotations

from collections import Counter

from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.scheduling.faults import Faults
from celery_global_rate.scheduling.lane import Lane
from celery_global_rate.worker.dismissals import LONGEST_PAUSE_S, REST, SLICE_S, Dismissals


class Backend:
    """Celery, as far as it dismisses requests: each call takes some time, and may fail."""

    def __init__(self, takes_s: float) -> None:
        self.now, self._takes_s = 100.0, takes_s
        self.broken: set[str] = set()
        self.kept: set[str] = set()
        self.calls: list[tuple[float, str]] = []
        self.lane = Lane("task", own("task", Limit.parse("1/h")))
        faults = Faults(monotonic=lambda: self.now)
        self.dismissals = Dismissals(lambda: [self.lane], self.dismiss, Lane.left, faults, lambda: self.now)

    def dismiss(self, request: str) -> bool:
        self.calls.append((self.now, request))
        self.now += self._takes_s
        if request in self.broken:
            raise ConnectionError(request)
        return request not in self.kept

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (at := self.dismissals.keep_up(self.now)) < end:
            self.now = max(self.now, at)
        self.now = max(self.now, end)


def test_each_is_dismissed_once_and_the_loop_is_left_to_others_meanwhile() -> None:
    """40 at a millisecond each: 4 or 5 in a row, and then as long a rest as four times that."""
    backend = Backend(0.001)
    for index in range(40):
        backend.lane.leave(str(index))
    backend.run(1)
    gaps = [later - earlier for (earlier, _), (later, _) in zip(backend.calls, backend.calls[1:])]

    assert [request for _, request in backend.calls] == [str(index) for index in range(40)]
    assert backend.lane.is_idle
    assert 7 <= sum(gap >= REST * SLICE_S for gap in gaps) <= 9


def test_one_that_cannot_be_dismissed_keeps_no_other_and_is_tried_again_ever_less_often() -> None:
    """Of three the second fails for ten seconds: the others are gone at once, and it within the longest pause after.

    Pauses of 0.05, 0.1 ... 3.2 s: the eighth attempt comes after 6.35 s, and then one every 4 s.
    """
    backend = Backend(0.001)
    backend.broken = {"1"}
    for request in "012":
        backend.lane.leave(request)
    backend.run(1)
    left_after_a_second = [leaving.request for leaving in backend.lane.leaving]
    backend.run(9)
    attempts = Counter(request for _, request in backend.calls)
    backend.broken.clear()
    back = backend.now
    backend.run(LONGEST_PAUSE_S + 1)

    assert left_after_a_second == ["1"]
    assert attempts["0"] == attempts["2"] == 1
    assert 7 <= attempts["1"] <= 9
    assert backend.lane.is_idle
    assert backend.calls[-1][0] - back <= LONGEST_PAUSE_S


def test_a_slow_backend_has_a_fifth_of_the_loop_at_most() -> None:
    """Two seconds for each: one at a time, and eight seconds for others after it."""
    backend = Backend(2)
    for request in "012":
        backend.lane.leave(request)
    begin = backend.now
    backend.run(60)

    assert [(at - begin, request) for at, request in backend.calls] == [(0, "0"), (10, "1"), (20, "2")]


def test_one_that_is_wanted_after_all_comes_back_first_and_does_not_leave_again() -> None:
    backend = Backend(0.001)
    backend.kept = {"0"}
    backend.lane.leave("0")
    backend.lane.hold("1", backend.now)
    backend.run(1)

    assert list(backend.lane.held) == ["0", "1"]
    assert not backend.lane.leave("0")
