"""The limit of a cluster of containers, switched on by an environment variable and nothing else."""

from __future__ import annotations

import pytest

from .conftest import ON_REDIS, Figures
from .fleet import Fleet
from .trial import Trial


@pytest.mark.brief
def test_two_workers_share_a_limit(trial: Trial, fleet: Fleet, figures: Figures) -> None:
    """50/s on either broker: 0.98 of the slots, and no window above the promise.

    The watch begins and ends with a start. The last one may be up to D late, which is 25 of 8000 ms: 1.005.
    """
    fleet.start(2)
    with trial.load():
        verdict = trial.watch(8)
    figures(str(verdict))

    assert verdict.excess <= 0
    assert 0.98 <= verdict.used <= 1.005
    assert len(verdict.shares) == 2


@ON_REDIS
@pytest.mark.parametrize("rate", ["5/s"])
def test_stock_workers_share_nothing(trial: Trial, fleet: Fleet, figures: Figures) -> None:
    """The same containers with the extension switched off: each of two workers has the rate for itself.

    Twice the slots would be 2.0; 1.5 is more than any error, and in 6 s 60 starts come where 30 slots are.
    """
    fleet.start(2, is_on=False)
    with trial.load():
        verdict = trial.watch(6)
    figures(f"stock: {verdict}")

    assert verdict.used >= 1.5
    assert verdict.excess >= 10


@ON_REDIS
@pytest.mark.parametrize(
    "options", [("--pool=threads",), ("--pool=gevent", "--concurrency=10"), ("--pool=solo",)], ids=lambda o: o[0][7:]
)
def test_pools(trial: Trial, fleet: Fleet, figures: Figures, options: tuple[str, ...]) -> None:
    """Two workers with another pool: the same bars."""
    fleet.start(2, *options)
    with trial.load():
        verdict = trial.watch(6)
    figures(str(verdict))

    assert verdict.excess <= 0
    assert 0.98 <= verdict.used <= 1.005


@pytest.mark.parametrize("celery_broker", ["celery_rabbitmq_broker"], indirect=True)
@pytest.mark.parametrize("rate", ["200/s"])
def test_four_workers(trial: Trial, fleet: Fleet, figures: Figures) -> None:
    """200/s: 0.9 of the slots where 15 processes share two cores, and nobody below half of another's share."""
    fleet.start(4)
    with trial.load():
        verdict = trial.watch(8)
    figures(str(verdict))

    assert verdict.excess <= 0
    assert 0.9 <= verdict.used <= 1.005
    assert min(verdict.shares) >= max(verdict.shares) / 2
    assert len(verdict.shares) == 4
