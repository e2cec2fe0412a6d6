"""All that limits one worker, put together, in a worker that is made up: what goes wrong stays where it happens."""

from __future__ import annotations

import threading
import time
from operator import attrgetter
from typing import Any

import pytest
from celery.worker import state

from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.override import Kept, parse_rates, set_limits
from celery_global_rate.storage.blocking_store import BlockingStore
from testbed.server import free_port

from ..broker.fakes import VISIBILITY_S, RedisChannel, Request
from .fakes import Worker


def fail(*args: Any) -> Any:
    raise LookupError("planted")


def hold(worker: Worker, count: int = 3) -> list[Any]:
    """Let a worker release one request, and hold the others."""
    requests = worker.receive(count)
    worker.loop.run_until(lambda: worker.released)
    return requests


def test_held_messages_are_requeued_before_rabbitmq_waits_too_long_and_do_not_start(worker: Worker) -> None:
    """The consumer timeout is 1800 s by default, and half of it has gone by since the first one was received."""
    _, *requests = hold(worker)
    old = worker.engine.scheduler.requests[0]
    old.arrival = old.arrival._replace(received=time.monotonic() - 900)
    worker.engine._ack_deadline.hold(old)
    worker.engine._ack_deadline.until = time.monotonic()
    worker.engine.pump()

    assert worker.log == ["requeue m1", "requeue m2"]
    assert (worker.engine.scheduler.held, worker.released) == (0, ["m0"])
    assert not {request.id for request in requests} & state.requests.keys()


def test_the_visibility_of_held_messages_is_renewed_on_redis_and_they_stay_held(url: str) -> None:
    channel = RedisChannel()
    channel.basic_consume = lambda *args, **kwargs: None  # type: ignore[attr-defined]
    with Worker(url, driver="redis", channel=channel) as worker:
        hold(worker)
        channel.written.clear()
        worker.engine._ack_deadline.until = now = time.monotonic()
        worker.engine.pump()
        held, until = worker.engine.scheduler.held, worker.engine._ack_deadline.until

    assert [sorted(entries) for _, entries, _ in channel.written] == [["m1", "m2"]]
    assert held == 2
    assert now + VISIBILITY_S / 3 <= until <= time.monotonic() + VISIBILITY_S / 3


def test_a_held_request_is_found_by_celerys_commands_and_hidden_when_it_is_dropped(worker: Worker) -> None:
    _, held, _ = hold(worker)
    shown = state.requests.get(held.id)
    worker.engine.clear()

    assert shown is held
    assert held.id not in state.requests
    assert [request.id for request in worker.engine.dropped] == ["m1", "m2"]


@pytest.mark.parametrize("part", ["_pool.show", "_credit.received", "aside.received", "_ack_deadline.hold"])
def test_an_error_before_a_request_is_held_does_not_lose_it(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    owner, method = part.rsplit(".", 1)
    monkeypatch.setattr(attrgetter(owner)(worker.engine), method, fail)
    hold(worker)

    assert (worker.released, worker.engine.scheduler.held) == (["m0"], 2)
    assert "planted" in caplog.text


@pytest.mark.parametrize("part", ["_ack_deadline.keep_up", "session.outage.keep_up"])
def test_a_chore_that_fails_keeps_no_other_from_its_turn(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    """A request that was revoked is noticed all the same, within the second in which all are looked at."""
    owner, method = part.rsplit(".", 1)
    monkeypatch.setattr(attrgetter(owner)(worker.engine), method, fail)
    worker.engine._ack_deadline.until = time.monotonic()
    _, revoked, _ = hold(worker)
    state.revoked.add(revoked.id)
    worker.loop.run_until(lambda: revoked.message.acknowledged)

    assert worker.engine.scheduler.held == 1
    assert caplog.text.count("LookupError: planted") == 1, "it is logged once and not at each attempt"


@pytest.mark.parametrize("how", ["by id", "by stamp", "expired", "cannot be asked together"])
def test_whatever_ends_a_held_request_is_found_among_others(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The third of five, within the second in which all are looked at; nobody asks for it before its turn."""
    if how == "expired":
        monkeypatch.setattr(Request, "expires", time.time())
        monkeypatch.setattr(Request, "maybe_expire", lambda request: request.id == "m2", raising=False)
    _, _, gone, _, _ = hold(worker, 5)
    if how in ("by id", "cannot be asked together"):
        state.revoked.add(gone.id)
    if how == "cannot be asked together":
        monkeypatch.setattr(worker.engine._pool, "may_be_gone", fail)
    elif how == "by stamp":
        gone.stamps, gone.stamped_headers = {"user": "7"}, ["user"]
        monkeypatch.setitem(state.revoked_stamps, "user", ["7"])
    worker.loop.run_until(lambda: gone.message.acknowledged)

    assert worker.engine.scheduler.held == 3


def test_an_error_of_the_broker_reaches_a_worker_whose_loop_is_ours(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker connects again then. It is also the only error that passes."""
    monkeypatch.setattr(worker.engine._ack_deadline, "keep_up", lambda *args: (_ for _ in ()).throw(OSError("gone")))
    worker.engine._ack_deadline.until = time.monotonic()
    with pytest.raises(OSError, match="gone"):
        worker.engine.pump()


def test_another_thread_leaves_its_work_to_the_loop(worker: Worker) -> None:
    """Pools of threads take messages in a thread of their own. What is held is dropped at once, and then it waits."""
    thread = threading.Thread(target=worker.receive, args=(3,))
    thread.start()
    thread.join()
    before = worker.engine.scheduler.held
    worker.loop.run_until(lambda: worker.released)
    held = worker.engine.scheduler.held
    clearing = threading.Thread(target=worker.engine.clear)
    clearing.start()
    worker.loop.run_until(lambda: not clearing.is_alive())

    assert (before, held, worker.engine.scheduler.held) == (0, 2, 0)


def test_an_override_that_was_just_written_changes_the_limit_at_once(worker: Worker) -> None:
    hold(worker)
    lane = worker.engine.lanes.lane("proj.task", None, str)
    with BlockingStore(worker.engine.settings) as store:
        _, override = store.change("proj.task", set_limits(*parse_rates("100/s", [Kept()]), ()), "me", "test", "")
    assert override is not None
    before = lane.limit
    worker.engine.obey("proj.task", override)

    assert (before, lane.limit) == (Limit.parse("1/h"), Limit.parse("100/s"))
    assert worker.task.rate_limit == "100/s"
    worker.loop.run_until(lambda: len(worker.released) == 2)


def test_a_worker_without_its_redis_starts_and_says_so() -> None:
    """It does not know how many share the limit: it holds."""
    with Worker(f"redis://127.0.0.1:{free_port()}/0") as worker:
        worker.receive(3)
        worker.loop.run_until(lambda: worker.engine.info()["outage"])
        known = worker.engine.info()

    assert "Connection" in known["outage"]
    assert (known["held"], worker.released) == (3, [])


def test_what_a_worker_says_of_itself(worker: Worker, url: str) -> None:
    hold(worker)
    known = worker.engine.info()

    assert (known["redis"], known["database"], known["prefix"]) == (url, 9, "global-rate:v1:proj")
    assert (known["outage"], known["on_outage"], known["held"], known["queues_aside"]) == (None, "share", 2, [])
