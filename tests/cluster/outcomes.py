"""What the tasks of `tests.apps.outcomes` do, and where stock Celery knows it."""

from __future__ import annotations

from dataclasses import dataclass

import celery

GREEN = ("gevent", "eventlet")
ALL = ("prefork", "threads", "solo", *GREEN)


@dataclass(frozen=True)
class Outcome:
    """What a task does.

    Attributes:
        starts: of it, for each message.
        pools: where stock Celery knows it and goes on afterwards.
    """

    starts: int = 1
    pools: tuple[str, ...] = ALL


#: The end of the task's code, and what its handlers make of it.
ENDS = {
    "succeeds": Outcome(),
    "fails": Outcome(),
    "fails_at_length": Outcome(),
    "fails_unpicklably": Outcome(),
    "fails_demandingly": Outcome(),
    "fails_late": Outcome(),
    "retries": Outcome(2),
    "retries_later": Outcome(2),
    "retries_in_vain": Outcome(2),
    "retries_itself": Outcome(2),
    "ignores": Outcome(),
    "rejects": Outcome(),
    "requeues": Outcome(2),
    "returns_much": Outcome(),
    "returns_an_object": Outcome(),
    "breaks_before": Outcome(),
    "breaks_on_success": Outcome(),
    "breaks_on_failure": Outcome(),
    "breaks_on_retry": Outcome(2),
    "breaks_in_signals": Outcome(),
    "replaces": Outcome(),
    "arranges": Outcome(),
}
#: Tasks that others bring about, and how many for each of their messages.
MEMBERS = {"replacement": 1, "first": 1, "second": 1, "member": 2, "body": 1}
#: Those without a limit.
UNLIMITED = ("arranges", "exits_unlimited")
#: The end of its process, or of what runs it. Threads, eventlet and solo know no time limits, and only prefork knows
#: soft ones; threads and solo terminate nothing.
LOSSES = {
    "exits": Outcome(),
    "exits_late": Outcome(),
    "exits_unlimited": Outcome(pools=("prefork", "threads", *GREEN)),
    "vanishes": Outcome(pools=("prefork",)),
    "is_killed": Outcome(pools=("prefork",)),
    "is_killed_late": Outcome(pools=("prefork",)),
    "is_killed_and_comes_again": Outcome(2, pools=("prefork",)),
    "runs_too_long": Outcome(pools=("prefork",)),
    "runs_much_too_long": Outcome(pools=("prefork", "gevent")),
    "runs_much_too_long_and_breaks": Outcome(pools=("prefork", "gevent")),
    "is_terminated": Outcome(pools=("prefork", "eventlet", *(("gevent",) if celery.__version__ >= "5.4" else ()))),
}
KINDS = {"ends": ENDS, "losses": LOSSES}
#: The pool of stock Celery, too, gives the task of a process that has died to another one, if it has not read yet
#: that the task had begun.
AT_LEAST = ("vanishes", "is_killed", "is_killed_late", "is_killed_and_comes_again")
