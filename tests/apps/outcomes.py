"""Tasks that end in every way that tasks have, each with its own limit at the rate of the run.

To be included beside `testbed.app`. With the extension on, the slots of each limit are recorded as well.
"""

from __future__ import annotations

import math
import os
import signal
import time
from typing import Any

from celery import Task, chain, chord, group, signals
from celery.exceptions import Ignore, Reject

from testbed.app import SETUP, app, record

#: Bytes of a large result.
LARGE = 2_000_000
#: A task that is to be ended from outside runs for so long otherwise, in seconds.
ENDLESS_S = 30


def limited(**options: Any) -> Any:
    return app.task(bind=True, rate_limit=SETUP.get("rate"), ignore_result=False, **options)


def start(task: Task) -> None:
    record("start", task.name, task.request.id)


def has_run(task: Task) -> bool:
    """Whether its message comes for the second time."""
    return bool(task.request.delivery_info.get("redelivered"))


class UnpicklableError(Exception):
    def __reduce__(self) -> str:
        raise TypeError("on purpose")


class DemandingError(Exception):
    """It can be pickled, and not be read again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__()


@limited(name="succeeds")
def succeeds(self: Task) -> None:
    start(self)


@limited(name="fails")
def fails(self: Task) -> None:
    start(self)
    raise RuntimeError("on purpose")


@limited(name="fails_at_length")
def fails_at_length(self: Task) -> None:
    start(self)
    raise RuntimeError("x" * LARGE)


@limited(name="fails_unpicklably")
def fails_unpicklably(self: Task) -> None:
    start(self)
    raise UnpicklableError


@limited(name="fails_demandingly")
def fails_demandingly(self: Task) -> None:
    start(self)
    raise DemandingError(1, 2)


@limited(name="fails_late", acks_late=True)
def fails_late(self: Task) -> None:
    start(self)
    raise RuntimeError("on purpose")


@limited(name="retries", max_retries=1)
def retries(self: Task) -> None:
    start(self)
    if not self.request.retries:
        self.retry(countdown=0)


@limited(name="retries_later", max_retries=1)
def retries_later(self: Task) -> None:
    start(self)
    if not self.request.retries:
        self.retry(countdown=0.5)


@limited(name="retries_in_vain", max_retries=1)
def retries_in_vain(self: Task) -> None:
    start(self)
    self.retry(countdown=0, exc=RuntimeError("on purpose"))


@limited(name="retries_itself", autoretry_for=(RuntimeError,), retry_kwargs={"max_retries": 1, "countdown": 0})
def retries_itself(self: Task) -> None:
    start(self)
    raise RuntimeError("on purpose")


@limited(name="ignores")
def ignores(self: Task) -> None:
    start(self)
    raise Ignore


@limited(name="rejects", acks_late=True)
def rejects(self: Task) -> None:
    start(self)
    raise Reject("on purpose", requeue=False)


@limited(name="requeues", acks_late=True)
def requeues(self: Task) -> None:
    start(self)
    if not has_run(self):
        raise Reject("on purpose", requeue=True)


@limited(name="replaces")
def replaces(self: Task) -> None:
    start(self)
    self.replace(replacement.si())


@limited(name="replacement")
def replacement(self: Task) -> None:
    start(self)


@limited(name="first")
def first(self: Task) -> None:
    start(self)


@limited(name="second")
def second(self: Task) -> None:
    start(self)


@limited(name="member")
def member(self: Task) -> None:
    start(self)


@limited(name="body")
def body(self: Task, results: list[Any]) -> None:
    start(self)


@app.task(bind=True, name="arranges")
def arranges(self: Task) -> None:
    start(self)
    chain(first.si(), second.si()).apply_async()
    group(member.si()).apply_async()
    chord([member.si()])(body.s())


@limited(name="returns_much")
def returns_much(self: Task) -> str:
    start(self)
    return "x" * LARGE


@limited(name="returns_an_object")
def returns_an_object(self: Task) -> object:
    start(self)
    return object()


# errors in handlers


def broken(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("on purpose, in a handler")


class Unready(Task):
    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        record("start", self.name, task_id)
        broken()


class Broken(Task):
    on_success = on_failure = on_retry = after_return = broken


@limited(name="breaks_before", base=Unready)
def breaks_before(self: Task) -> None:
    pass


@limited(name="breaks_on_success", base=Broken)
def breaks_on_success(self: Task) -> None:
    start(self)


@limited(name="breaks_on_failure", base=Broken)
def breaks_on_failure(self: Task) -> None:
    start(self)
    raise RuntimeError("on purpose")


@limited(name="breaks_on_retry", base=Broken, max_retries=1)
def breaks_on_retry(self: Task) -> None:
    start(self)
    if not self.request.retries:
        self.retry(countdown=0)


@limited(name="breaks_in_signals")
def breaks_in_signals(self: Task) -> None:
    start(self)


for _signal in (signals.task_received, signals.task_prerun, signals.task_postrun, signals.task_success):

    @_signal.connect(weak=False)
    def on_signal(request: Any = None, task: Any = None, sender: Any = None, **kwargs: Any) -> None:
        names = {getattr(it, "name", None) for it in (request, task, sender)}
        if "breaks_in_signals" in names:
            broken()


# losses


@limited(name="exits")
def exits(self: Task) -> None:
    start(self)
    raise SystemExit(3)


@limited(name="exits_late", acks_late=True)
def exits_late(self: Task) -> None:
    start(self)
    raise SystemExit(3)


@app.task(bind=True, name="exits_unlimited")
def exits_unlimited(self: Task) -> None:
    start(self)
    raise SystemExit(3)


@limited(name="vanishes")
def vanishes(self: Task) -> None:
    start(self)
    os._exit(3)


@limited(name="is_killed")
def is_killed(self: Task) -> None:
    start(self)
    os.kill(os.getpid(), signal.SIGKILL)


@limited(name="is_killed_late", acks_late=True)
def is_killed_late(self: Task) -> None:
    start(self)
    os.kill(os.getpid(), signal.SIGKILL)


@limited(name="is_killed_and_comes_again", acks_late=True, reject_on_worker_lost=True)
def is_killed_and_comes_again(self: Task) -> None:
    start(self)
    if not has_run(self):
        os.kill(os.getpid(), signal.SIGKILL)


@limited(name="runs_too_long", soft_time_limit=0.2)
def runs_too_long(self: Task) -> None:
    start(self)
    time.sleep(ENDLESS_S)


@limited(name="runs_much_too_long", time_limit=0.2)
def runs_much_too_long(self: Task) -> None:
    start(self)
    time.sleep(ENDLESS_S)


@limited(name="runs_much_too_long_and_breaks", time_limit=0.2, base=Broken)
def runs_much_too_long_and_breaks(self: Task) -> None:
    start(self)
    time.sleep(ENDLESS_S)


@limited(name="is_terminated")
def is_terminated(self: Task) -> None:
    start(self)
    app.control.revoke(self.request.id, terminate=True)
    time.sleep(ENDLESS_S)


# and beside them


@limited(name="crawls")
def crawls(self: Task) -> None:
    start(self)


@app.task(bind=True, name="afterwards", rate_limit="50/s" if SETUP.get("rate") else None)
def afterwards(self: Task, run_time_s: float) -> None:
    start(self)
    time.sleep(run_time_s)


if SETUP.get("extension"):
    from celery_global_rate.limits.bucket import Bucket
    from celery_global_rate.limits.costs import Costs
    from celery_global_rate.limits.reservation import Reply, SlotsInHand
    from celery_global_rate.scheduling.lane import Lane
    from celery_global_rate.storage.limiter import Limiter

    _reserve, _give_back = Limiter.reserve, Limiter.give_back

    def reserve(
        self: Limiter,
        name: str,
        buckets: tuple[Bucket, ...],
        wanted: int,
        reply: Reply,
        costs: Costs | None = None,
        within_s: float = math.inf,
    ) -> None:
        def counted(reservation: SlotsInHand | None) -> None:
            if reservation is not None and reservation.count:
                record("granted", name, str(reservation.count))
            reply(reservation)

        _reserve(self, name, buckets, wanted, counted, costs, within_s)

    def give_back(self: Limiter, buckets: tuple[Bucket, ...], reservation: SlotsInHand) -> None:
        record("returned", buckets[0].name, str(reservation.left))
        _give_back(self, buckets, reservation)

    Limiter.reserve, Limiter.give_back = reserve, give_back  # type: ignore[method-assign]
    _missed = Lane.missed

    def missed(self: Lane, slots: int, now: float) -> int:
        counted = _missed(self, slots, now)
        if counted < slots:
            record("spared", self.name, str(slots - counted))
        return counted

    Lane.missed = missed  # type: ignore[method-assign]
