"""Containers that are killed, stopped, cut off or short of memory, and a Redis that is restarted.

While a container is hurt, or has just been, 0.95 of the slots are the least: 0.98 would be what the others can do, but
they share two cores with a container that starts, stops, or is killed.

What a fault delays is not forbidden by the promise: a worker that is stopped, or is on a machine that has just lost its
network, may be held up between its last look at the clock and the release itself. So the worst window of a run may
exceed the promise by the processes of the container that was hurt.
"""

from __future__ import annotations

import time

import pytest
from celery import Celery
from pytest_celery import CeleryTestBroker

from testbed.meanwhile import wait

from .conftest import ON_RABBITMQ, ON_REDIS, Figures
from .fleet import Fleet, names
from .trial import Trial

PROCESSES = 2
#: How long a fault lasts, in seconds.
FAULT_S = 5.0


@pytest.fixture
def default_worker_app(default_worker_app: Celery) -> Celery:
    """Without its Redis a worker starts nothing: what starts by a share of the limit is not what is judged here."""
    default_worker_app.conf.global_rate_on_outage = "hold"
    return default_worker_app


@pytest.mark.brief
@ON_RABBITMQ
def test_a_killed_worker_takes_nothing_with_it(trial: Trial, fleet: Fleet, figures: Figures) -> None:
    """`docker kill` of one of three: the others have the full rate at once, and all tasks run.

    What it held is redelivered. What its processes had begun is acknowledged: these may not have recorded. It took
    its slots within the horizon along: five of 50/s at the most, of 250 in 5 s.
    """
    victim, *_ = fleet.start(3)
    with trial.load():
        before = trial.watch(3)
        fleet.kill(victim)
        after = trial.watch(5)
    lost, doubled = trial.rest(lost=PROCESSES)
    figures(f"{before}; without one {after}; {lost} lost and {doubled} twice of {len(trial.sent)}")

    assert after.excess <= 0
    assert 0.95 <= after.used <= 1.01
    assert len(before.shares) == 3
    assert len(after.shares) == 2
    assert doubled == 0


@pytest.mark.brief
@ON_REDIS
def test_a_worker_that_is_cut_off_starts_nothing_and_joins_again(trial: Trial, fleet: Fleet, figures: Figures) -> None:
    """One of two workers loses the network for 5 s: the other one has the full rate, then both share it again.

    Nothing informs the worker. It can use what it had reserved, within the horizon of 0.1 s, and its processes record
    that when they are joined again.
    """
    victim, _ = fleet.start(2)
    with trial.load():
        before = trial.watch(3)
        fleet.cut(victim)
        alone = trial.watch(FAULT_S, calm=False)
        fleet.join(victim)
        joined_at = trial.starts.now()
        wait(lambda: names([victim]) <= {start.worker for start in trial.starts.since(joined_at + 1)}, 60, fleet.logs)
        back_s = trial.starts.now() - joined_at
        after = trial.watch(4, calm=False)
    figures(f"{before}; cut {alone}; back after {back_s:.1f} s; joined {after}")

    assert before.excess <= 0
    assert after.excess <= PROCESSES
    assert 0.95 <= alone.used <= 1.01
    assert len(alone.shares) == 1
    assert 0.95 <= after.used <= 1.01
    assert len(after.shares) == 2


@ON_RABBITMQ
def test_a_paused_worker_uses_no_old_slot(trial: Trial, fleet: Fleet, figures: Figures) -> None:
    """`docker pause` of one of two for 5 s: the other one has the full rate, and nothing is made up for afterwards.

    The paused container has 50/s x 0.1 s = 5 slots in hand at the most. Used late, they would come on top of the
    other's: so they are missed, and what is late are tasks that its two processes had been given already.
    """
    victim, _ = fleet.start(2)
    with trial.load():
        before = trial.watch(3)
        fleet.container(victim).pause()
        trial.write_off()  # RabbitMQ may send all that waits to the paused one
        alone = trial.watch(FAULT_S, calm=False)
        fleet.container(victim).unpause()
        after = trial.watch(4, calm=False)
    lost, doubled = trial.rest()
    figures(f"{before}; paused {alone}; unpaused {after}; {lost} lost and {doubled} twice of {len(trial.sent)}")

    assert before.excess <= 0
    assert after.excess <= PROCESSES
    assert 0.95 <= alone.used <= 1.01
    assert 0.95 <= after.used <= 1.01
    assert len(after.shares) == 2
    assert doubled == 0


@ON_REDIS
def test_a_process_that_is_killed_for_its_memory(trial: Trial, fleet: Fleet, figures: Figures) -> None:
    """One of two workers may have 256 MB, and a task takes more: the kernel kills its process, and the limit holds.

    Celery forks another one. A slot that came due for the dead process is missed.
    """
    fleet.start(1)
    (small,) = fleet.start(1, "--queues=celery,small", mem_limit="256m", memswap_limit="256m")
    with trial.load():
        before = trial.watch(3)
        fleet.send("greedy", queue="small")
        wait(lambda: "WorkerLostError" in small.logs(), 30, small.logs)
        after = trial.watch(5)
    figures(f"{before}; afterwards {after}")

    assert after.excess <= 0
    assert 0.95 <= after.used <= 1.01
    assert len(after.shares) == 2


@ON_REDIS
def test_a_restarted_redis(trial: Trial, fleet: Fleet, figures: Figures, celery_broker: CeleryTestBroker) -> None:
    """The Redis that is broker and limiter at once, restarted with its data: limit and tasks are there again.

    Workers reconnect by themselves: Celery tries after 2, 4 and 6 s. No slot of before is given out again. What they
    held returns with the connection.
    """
    fleet.start(2)
    with trial.load():
        before = trial.watch(3)
        away_at = trial.starts.now()
        celery_broker.restart()
        trial.write_off()
        wait(lambda: bool(trial.starts.since(away_at + 2)), 30, fleet.logs)
        time.sleep(1)
        after = trial.watch(5)
    figures(f"{before}; nothing for {trial.starts.longest_gap_s():.1f} s; {after}")

    assert after.excess <= 0
    assert 0.95 <= after.used <= 1.01
    assert len(after.shares) == 2
