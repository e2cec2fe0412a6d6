"""Control from outside: commands in a container that is no worker."""

from __future__ import annotations

import time

from celery_global_rate.limits.limit import Limit

from .conftest import ON_REDIS, Figures
from .fleet import Fleet, names
from .trial import Trial


@ON_REDIS
def test_a_rate_is_changed_while_tasks_are_held(trial: Trial, fleet: Fleet, figures: Figures) -> None:
    """`celery control rate_limit limited 10/s` under load at 50/s: from then on, 10/s.

    Slots in hand are given back, so nothing of the old rate is left half a second after the command has returned. Over
    6 s there are 60 slots of 100 ms; the watch is from start to start, each up to D = 25 ms late.
    """
    fleet.start(2)
    with trial.load():
        before = trial.watch(3)
        code, text = fleet.outside("celery", "-A", "app", "control", "rate_limit", "limited", "10/s")
        time.sleep(0.5)
        limit = Limit.parse("10/s")
        assert limit is not None
        changed_at = trial.starts.now()
        slow = Trial(fleet, trial.starts, limit, trial.slack_s)
        after = slow.watch(6, calm=False)
    late = [start for start in trial.starts.of() if start.instant >= changed_at]
    figures(f"{before}; then {after.starts / after.seconds:.2f} starts/s, {after.used:.4f} of 10/s")

    assert code == 0, text
    assert text.count("OK") == 2
    assert before.excess <= 0
    assert 0.98 <= after.used <= 1.01
    assert len({start.worker for start in late}) == 2


def test_check_tells_which_container_was_forgotten(fleet: Fleet, figures: Figures) -> None:
    """`celery global-rate check` in its own container: exit 0 with two workers on, 1 with one off besides."""
    fleet.start(2)
    agreed = fleet.outside("celery", "-A", "app", "global-rate", "check")
    forgotten = fleet.start(1, is_on=False)
    differ = fleet.outside("celery", "-A", "app", "global-rate", "check")
    lines = {line.split()[0]: line.split()[-1] for line in differ[1].splitlines() if "@" in line.partition(" ")[0]}
    figures(f"exit {agreed[0]}, then {differ[0]}: {differ[1].splitlines()[-1]}")

    assert agreed[0] == 0, agreed[1]
    assert differ[0] == 1, differ[1]
    assert {name for name, state in lines.items() if state == "off"} == names(forgotten)
    assert len(lines) == 3
