"""A short run of `make chaos`, and the way it judges."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.server import redis_binary
from testbed.windows import excess

from .chaos.load import BUCKETS
from .chaos.promise import SLACK_S, Extra, Limits, RatesInForce, recovery_s, use, worst_window
from .chaos.run import run
from .conftest import Figures

#: `GLOBAL_RATE_SEED=7` lets the faults of another run happen again.
SEED = int(os.environ.get("GLOBAL_RATE_SEED") or random.randrange(10_000))


@pytest.mark.long
@pytest.mark.parametrize("load", ["task", "buckets"])
@pytest.mark.parametrize("policy", ["hold", "share"])
def test_a_short_run(figures: Figures, policy: str, load: str) -> None:
    """Half a minute, three workers, about eight faults: the bounds of docs/guarantees hold, and nothing is lost.

    With a limit of a task, and with named buckets that several tasks share.
    """
    if redis_binary() is None:
        pytest.skip("no Redis of our own to run")
    log: list[str] = []
    report = run(SEED, 3, 30 if policy == "hold" else 120, policy, log.append, load)
    figures(str(report))

    assert report.worst_window <= 0, log
    assert (report.lost, report.needless, report.crashed) == (0, 0, 0), log
    assert report.is_kept, (report, log)


@pytest.mark.long
def test_a_limit_of_a_lane_that_is_not_booked_is_found(figures: Figures) -> None:
    """The script leaves out the last limit of each lane that has several: some windows of it hold too much."""
    if redis_binary() is None:
        pytest.skip("no Redis of our own to run")
    report = run(SEED, 3, 15, "hold", lambda line: None, "buckets", ["tests.apps.unbooked"])
    figures(f"not booked: {report.worst}")

    assert report.worst_window > 5
    assert not report.is_kept


instants = st.lists(st.floats(0, 20), min_size=1, max_size=30).map(sorted)


@given(
    instants,
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from([1.0, 5.0, 20.0])), min_size=1, max_size=4).map(sorted),
    st.lists(st.builds(lambda at, s, n: Extra(at, at + s, n), st.floats(0, 20), st.floats(0, 3), st.floats(0, 9))),
    st.integers(1, 5),
)
def test_every_window_is_seen(
    releases: list[float], changes: list[tuple[float, float]], extras: list[Extra], burst: int
) -> None:
    """One pass finds what a look at each window finds."""
    limits = Limits(changes)

    def over(first: int, last: int) -> float:
        begin, end = releases[first], releases[last]
        allowed = sum(it.starts for it in extras if it.begin <= end and it.end >= begin)
        return last - first + 1 - burst - (limits.slots(end) - limits.slots(begin - SLACK_S)) - allowed

    worst = max(over(first, last) for last in range(len(releases)) for first in range(last + 1))

    assert worst_window(releases, limits, extras, burst)[0] == pytest.approx(worst, abs=1e-6)


def test_rates_that_may_be_in_force() -> None:
    """The faster of two counts until one is confirmed, and a burst is saved in its intervals already."""
    in_force = RatesInForce(0.0, (10, 20), (1, 5))
    in_force.asked(1.0, (5, 40))
    in_force.confirmed(2.0, (5, 40))
    in_force.asked(3.0, (20, 10))  # nobody has confirmed it
    one, two = in_force.limits(0), in_force.limits(1)

    assert [one.rate(instant) for instant in (0.5, 1.5, 2.5, 3.5)] == [10, 10, 5, 20]
    assert [two.rate(instant) for instant in (0.5, 0.95, 1.5, 2.5, 3.5)] == [20, 40, 40, 40, 40]
    assert in_force.rates == {(5, 40), (20, 10)}


def test_the_limits_of_each_kind_of_message() -> None:
    """A value of a key has its own limit; a task from a queue has those of the queue as well; some cost more."""
    assert {(kind.task, kind.queue, kind.value): BUCKETS.limits(kind) for kind in BUCKETS.kinds} == {
        ("api.fetch", "celery", ""): [("api", 1)],
        ("api.push", "celery", ""): [("api.push", 1), ("api", 1), ("bytes", 3)],
        ("api.push", "mail", ""): [("api.push", 1), ("api", 1), ("mail (1)", 1), ("mail (2)", 1), ("bytes", 7)],
        ("api.sync", "celery", "a"): [("api", 1), ("tenant a", 1)],
        ("api.sync", "mail", "a"): [("api", 1), ("tenant a", 1), ("mail (1)", 1), ("mail (2)", 1)],
        ("api.sync", "celery", "b"): [("api", 1), ("tenant b", 1)],
        ("notify", "mail", ""): [("mail (1)", 1), ("mail (2)", 1), ("bytes", 1)],
    }


@given(instants, st.sampled_from([1.0, 7.0, 50.0]))
def test_it_is_the_same_window_where_nothing_happens(releases: list[float], rate: float) -> None:
    worst, _ = worst_window(releases, Limits([(0.0, rate)]), [])

    assert worst == pytest.approx(excess(releases, 1 / rate, 1, SLACK_S), abs=1e-6)


def test_use_and_recovery_are_told_from_the_starts() -> None:
    """10/s, nothing from 2 s to 4 s, where something is broken until 3.5 s, and every second slot from 6 s on."""
    releases = [*(index / 10 for index in range(20)), *(4 + index / 10 for index in range(20))]
    releases += [6 + index / 5 for index in range(10)]
    limits = Limits([(0.0, 10.0)])

    assert use(releases, limits, [(0.0, 1.5), (4.0, 5.5)]) == pytest.approx(1)
    assert use(releases, limits, [(6.0, 7.5), (8.5, 10.5)]) == pytest.approx(8 / 35)
    assert recovery_s(releases, 10, 2, 3.5, 6) == pytest.approx(0.5)
    assert recovery_s(releases, 10, 4.5, 5, 6) == 0
    assert recovery_s(releases, 10, 8, 8.1, 10) == pytest.approx(1.9)  # nothing at all any more
