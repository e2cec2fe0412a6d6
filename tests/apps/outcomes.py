"""Tasks that end in every way that tasks have, each with its own limit at the rate of the run.

To be included beside `testbed.app`. With the extension on, the slots of each limit are recorded as well.
"""

from __future__ import annotations

import os
import signal
import time

from celery import Task, chain, chord, group, signals
from celery.exceptions import Ignore, Reject

from testbed.app import SETUP, app, record

#: Bytes of a large result.
LARGE = 2_000_000
#: A task that is to be ended from outside runs for so long otherwise, in seconds.
ENDLESS_S = 30


def limited(**options):
    return app.task(bind=True, rate_limit=SETUP.get("rate"), ignore_result=False, **options)


def start(task):
    record("start", task.name, task.request.id)


def has_run(task):
    """Whether its message comes for the second time."""
    return bool(task.request.delivery_info.get("redelivered"))


class UnpicklableError(Exception):
    def __reduce__(self):
        raise TypeError("on purpose")


class DemandingError(Exception):
    """It can be pickled, and not be read again."""

    def __init__(self, one, two):
        super().__init__()


@limited(name="succeeds")
def succeeds(self):
    start(self)


@limited(name="fails")
def fails(self):
    start(self)
    raise RuntimeError("on purpose")


@limited(name="fails_at_length")
def fails_at_length(self):
    start(self)
    raise RuntimeError("x" * LARGE)


@limited(name="fails_unpicklably")
def fails_unpicklably(self):
    start(self)
    raise UnpicklableError


@limited(name="fails_demandingly")
def fails_demandingly(self):
    start(self)
    raise DemandingError(1, 2)


@limited(name="fails_late", acks_late=True)
def fails_late(self):
    start(self)
    raise RuntimeError("on purpose")


@limited(name="retries", max_retries=1)
def retries(self):
    start(self)
    if not self.request.retries:
        self.retry(countdown=0)


@limited(name="retries_later", max_retries=1)
def retries_later(self):
    start(self)
    if not self.request.retries:
        self.retry(countdown=0.5)


@limited(name="retries_in_vain", max_retries=1)
def retries_in_vain(self):
    start(self)
    self.retry(countdown=0, exc=RuntimeError("on purpose"))


@limited(name="retries_itself", autoretry_for=(RuntimeError,), retry_kwargs={"max_retries": 1, "countdown": 0})
def retries_itself(self):
    start(self)
    raise RuntimeError("on purpose")


@limited(name="ignores")
def ignores(self):
    start(self)
    raise Ignore


@limited(name="rejects", acks_late=True)
def rejects(self):
    start(self)
    raise Reject("on purpose", requeue=False)


@limited(name="requeues", acks_late=True)
def requeues(self):
    start(self)
    if not has_run(self):
        raise Reject("on purpose", requeue=True)


@limited(name="replaces")
def replaces(self):
    start(self)
    self.replace(replacement.si())


@limited(name="replacement")
def replacement(self):
    start(self)


@limited(name="first")
def first(self):
    start(self)


@limited(name="second")
def second(self):
    start(self)


@limited(name="member")
def member(self):
    start(self)


@limited(name="body")
def body(self, results):
    start(self)


@app.task(bind=True, name="arranges")
def arranges(self):
    start(self)
    chain(first.si(), second.si()).apply_async()
    group(member.si()).apply_async()
    chord([member.si()])(body.s())


@limited(name="returns_much")
def returns_much(self):
    start(self)
    return "x" * LARGE


@limited(name="returns_an_object")
def returns_an_object(self):
    start(self)
    return object()


# errors in handlers


def broken(*args, **kwargs):
    raise RuntimeError("on purpose, in a handler")


class Unready(Task):
    def before_start(self, task_id, args, kwargs):
        record("start", self.name, task_id)
        broken()


class Broken(Task):
    on_success = on_failure = on_retry = after_return = broken


@limited(name="breaks_before", base=Unready)
def breaks_before(self):
    pass


@limited(name="breaks_on_success", base=Broken)
def breaks_on_success(self):
    start(self)


@limited(name="breaks_on_failure", base=Broken)
def breaks_on_failure(self):
    start(self)
    raise RuntimeError("on purpose")


@limited(name="breaks_on_retry", base=Broken, max_retries=1)
def breaks_on_retry(self):
    start(self)
    if not self.request.retries:
        self.retry(countdown=0)


@limited(name="breaks_in_signals")
def breaks_in_signals(self):
    start(self)


for _signal in (signals.task_received, signals.task_prerun, signals.task_postrun, signals.task_success):

    @_signal.connect(weak=False)
    def on_signal(request=None, task=None, sender=None, **kwargs):
        names = {getattr(it, "name", None) for it in (request, task, sender)}
        if "breaks_in_signals" in names:
            broken()


# losses


@limited(name="exits")
def exits(self):
    start(self)
    raise SystemExit(3)


@limited(name="exits_late", acks_late=True)
def exits_late(self):
    start(self)
    raise SystemExit(3)


@app.task(bind=True, name="exits_unlimited")
def exits_unlimited(self):
    start(self)
    raise SystemExit(3)


@limited(name="vanishes")
def vanishes(self):
    start(self)
    os._exit(3)


@limited(name="is_killed")
def is_killed(self):
    start(self)
    os.kill(os.getpid(), signal.SIGKILL)


@limited(name="is_killed_late", acks_late=True)
def is_killed_late(self):
    start(self)
    os.kill(os.getpid(), signal.SIGKILL)


@limited(name="is_killed_and_comes_again", acks_late=True, reject_on_worker_lost=True)
def is_killed_and_comes_again(self):
    start(self)
    if not has_run(self):
        os.kill(os.getpid(), signal.SIGKILL)


@limited(name="runs_too_long", soft_time_limit=0.2)
def runs_too_long(self):
    start(self)
    time.sleep(ENDLESS_S)


@limited(name="runs_much_too_long", time_limit=0.2)
def runs_much_too_long(self):
    start(self)
    time.sleep(ENDLESS_S)


@limited(name="runs_much_too_long_and_breaks", time_limit=0.2, base=Broken)
def runs_much_too_long_and_breaks(self):
    start(self)
    time.sleep(ENDLESS_S)


@limited(name="is_terminated")
def is_terminated(self):
    start(self)
    app.control.revoke(self.request.id, terminate=True)
    time.sleep(ENDLESS_S)


# and beside them


@limited(name="crawls")
def crawls(self):
    start(self)


@app.task(bind=True, name="afterwards", rate_limit="50/s" if SETUP.get("rate") else None)
def afterwards(self, run_time_s):
    start(self)
    time.sleep(run_time_s)


if SETUP.get("extension"):
    from celery_global_rate.scheduling.bucket import Bucket
    from celery_global_rate.storage.limiter import Limiter

    _reserve, _give_back = Limiter.reserve, Limiter.give_back

    def reserve(self, name, limit, wanted, reply):
        def counted(reservation):
            if reservation is not None and reservation.count:
                record("granted", name, reservation.count)
            reply(reservation)

        _reserve(self, name, limit, wanted, counted)

    def give_back(self, name, reservation):
        record("returned", name, reservation.left)
        _give_back(self, name, reservation)

    Limiter.reserve, Limiter.give_back = reserve, give_back
    _missed = Bucket.missed

    def missed(self, slots, now):
        counted = _missed(self, slots, now)
        if counted < slots:
            record("spared", self.name, slots - counted)
        return counted

    Bucket.missed = missed
