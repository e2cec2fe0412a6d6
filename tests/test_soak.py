"""Short runs of `make soak`, and the way it judges."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import Any

import pytest

from testbed.server import redis_binary

from .conftest import Figures
from .soak.footprint import Footprint, is_flat, least
from .soak.report import Report, Witness
from .soak.run import run

#: `GLOBAL_RATE_SEED=7` lets the events of another run happen again.
SEED = int(os.environ.get("GLOBAL_RATE_SEED") or random.randrange(10_000))

FLAT = ((60.0, 30), (62.0, 31), (63.0, 31))
KEPT = Report(
    seed=7,
    seconds=3600.0,
    tasks={"succeeds": (1800, 1800)},
    events={"revoked": 3},
    stuck=(),
    longest_s=4.0,
    worst=0.0,
    use=0.99,
    missed=(0.5, "succeeds"),
    doubled=1,
    needless=(),
    lost=(),
    struck=1,
    crashed=0,
    keys=90,
    most_keys=114,
    witnesses=(Witness("prefork", FLAT, 900, ()),),
)

needs_a_server = pytest.mark.skipif(redis_binary() is None, reason="no Redis of our own to run")


@pytest.mark.long
@needs_a_server
def test_a_short_run(figures: Figures) -> None:
    """A minute and a half: whatever tasks do, all start again after each event, none is lost, the rates are kept.

    Memory and descriptors are still growing by then, as in stock Celery: the hour of `make soak` looks at them.
    """
    log: list[str] = []
    report = run(SEED, 90, log.append)
    figures(str(report))

    assert report.worst <= 0, log
    assert report.use >= 0.95, log
    assert (report.stuck, report.lost, report.needless, report.crashed) == ((), (), (), 0), log
    assert report.keys <= report.most_keys
    assert all(not witness.complaints for witness in report.witnesses), report


@pytest.mark.long
@needs_a_server
def test_a_worker_that_stops_its_limits_is_found(figures: Figures) -> None:
    """With the run time of a failed task let in unchecked, the limits of a worker stop after some such tasks."""
    report = run(7, 30, lambda line: None, include=["tests.apps.stuck"])
    figures(f"planted: {len(report.stuck)} stuck, {len(report.lost)} lost")

    assert report.stuck
    assert not report.is_kept


@pytest.mark.parametrize(
    "fault",
    [
        {"stuck": ("succeeds after KILL w3 at 5 s",)},
        {"lost": ("succeeds",)},
        {"needless": ("succeeds",)},
        {"worst": 0.01},
        {"use": 0.94},
        {"crashed": 1},
        {"keys": 115},
        {"witnesses": (Witness("prefork", FLAT, 900, ("global-rate: an error",)),)},
        {"witnesses": (Witness("prefork", ((60.0, 30), (62.0, 31), (63.0, 40)), 900, ()),)},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_each_fault_fails_the_run(fault: dict[str, Any]) -> None:
    """One that has none is kept; with any one of them it is not."""
    assert KEPT.is_kept
    assert not replace(KEPT, **fault).is_kept


def test_what_grows_is_not_flat() -> None:
    """A tenth of all held tasks kept, or a descriptor a minute, is seen; pages that an allocator keeps are not."""
    assert is_flat((60.0, 30), (63.0, 31), tasks=10_000)
    assert not is_flat((60.0, 30), (60.0 + 0.1 * 8 * 10_000 / 1024, 30), tasks=10_000)
    assert not is_flat((60.0, 30), (60.0, 60), tasks=10_000)


def test_a_footprint_is_the_least_before_an_instant() -> None:
    """What comes and goes is left out, and so is what came later or long before."""
    them = [Footprint(at, memory_mb, 20 + int(at)) for at, memory_mb in ((0, 10.0), (8, 70.0), (9, 60.0), (11, 1.0))]

    assert least(them, until=10, span_s=5) == (60.0, 28)
