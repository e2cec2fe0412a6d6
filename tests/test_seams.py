"""What the package leans on in Celery, kombu and redis-py: one test each, on the real objects.

A failure names our file to open, and theirs. Tests that take `lived` share one worker, which runs in this process:
it receives two limited tasks, loses its broker connection, connects again and ends.
"""

from __future__ import annotations

import inspect
import select
import signal
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import redis
from billiard.einfo import ExceptionInfo
from billiard.pool import ApplyResult
from celery import VERSION, Celery, Task, bootsteps, signals
from celery.app.task import Context
from celery.app.trace import build_tracer
from celery.apps import worker as worker_app
from celery.bin.base import CeleryOption
from celery.bin.worker import worker as worker_command
from celery.concurrency.asynpool import AsynPool
from celery.concurrency.base import apply_target
from celery.exceptions import WorkerLostError
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.control import Panel, nok
from celery.worker.pidbox import Pidbox
from celery.worker.request import Request
from kombu import Connection, pools
from kombu.asynchronous.hub import Hub
from kombu.common import QoS

from celery_global_rate.storage.hub_connection import WOULD_BLOCK
from celery_global_rate.worker.pool import _is_revoked_by_stamp

from .conftest import Server
from .worker.probe import OPTION, RUN_TIME_S, Lane, application, build, seam

CONSUMER = "celery/worker/consumer/consumer.py"


@pytest.fixture(scope="module")
def lived(redis_server: Server) -> Iterator[Any]:
    """What the step and the bucket of a worker have seen in its life."""
    redis_server.client(9).flushdb()
    app = application(f"{redis_server.url}/9")
    worker = build(app)
    app.set_current()  # tasks are looked up there
    app.seen.built = {"events": list(app.seen.events), "buckets": worker.consumer.task_buckets}
    app.send_task("limited")
    app.send_task("limited")
    worker.start()
    app.seen.worker, app.seen.stats = worker, worker.consumer.blueprint.info(worker.consumer)
    yield app.seen
    state.reset_state()
    app.close()
    pools.reset()


def test_buckets_are_looked_up_on_the_instance_and_updated_in_place(lived: Any) -> None:
    buckets, before = lived.stock_buckets
    seam(
        "TokenBucket" in repr(before["limited"]),
        "stock buckets exist before steps are created",
        "worker/step.py",
        CONSUMER,
    )
    seam(
        lived.built["buckets"] is buckets, "reset_rate_limits updates task_buckets in place", "worker/step.py", CONSUMER
    )
    seam(isinstance(buckets["limited"], Lane), "reset_rate_limits asks the instance", "worker/step.py", CONSUMER)


def test_the_step_gets_the_options_of_the_worker_and_knows_hub_and_rate_limits_early(lived: Any) -> None:
    seam(lived.option == OPTION, "worker options reach the step's __init__", "worker/step.py", CONSUMER)
    seam(
        lived.known_early, "consumer.hub and .disable_rate_limits are set before include_if", "worker/step.py", CONSUMER
    )


def test_a_strategy_asks_if_bucket_and_adds_a_request_with_its_tokens(lived: Any) -> None:
    items = [(request.name, tokens) for request, tokens in lived.items]
    seam(items == [("limited", 1)] * 2, "bucket.add((request, tokens))", "worker/step.py", CONSUMER)
    seam(lived.asked_if_bucket, "`if bucket`", "worker/task_bucket.py", "celery/worker/strategy.py")


def test_a_request_is_reserved_and_then_active_and_then_neither(lived: Any) -> None:
    active, reserved, started = lived.running
    seam(lived.reserved, "task_reserved adds to reserved_requests", "worker/step.py", "celery/worker/state.py")
    seam(
        active and reserved,
        "a running request is in both sets",
        "worker/pool.py CeleryPool.free",
        "celery/worker/state.py",
    )
    seam(
        time.time() - 60 < started <= time.time(),
        "time_start is epoch seconds",
        "worker/step.py",
        "celery/worker/request.py",
    )
    seam(not lived.left, "task_ready discards before on_success returns", "worker/step.py", "celery/worker/request.py")


def test_on_success_is_looked_up_on_the_request_and_gets_the_run_time_third(lived: Any) -> None:
    failed, _, run_time_s = lived.outcome
    seam(failed == 0, "outcome is (failed, value, run time)", "worker/pool.py CeleryPool.start", "celery/app/trace.py")
    seam(
        RUN_TIME_S <= run_time_s < 1,
        "the run time is in seconds",
        "worker/pool.py CeleryPool.start",
        "celery/app/trace.py",
    )


def test_revoked_announces_and_acknowledges_and_may_be_asked_again(lived: Any) -> None:
    seam(
        lived.revoked == (True, True, True),
        "Request.revoked",
        "worker/pool.py CeleryPool.is_gone",
        "celery/worker/request.py",
    )


def test_a_request_can_fail_before_it_starts() -> None:
    """As Celery 5.7 lets one fail whose ETA it cannot read. `tests/worker/test_failures.py` has one that does."""
    ours, theirs = "worker/failures.py", "celery/worker/request.py"
    for name in ("_context", "store_errors", "reject", "send_event"):
        seam(hasattr(Request, name), name, f"{ours} {name}", theirs)
    parameters = inspect.signature(Celery(set_as_current=False).backend.mark_as_failure).parameters
    is_known = {"request", "store_result"} <= parameters.keys()
    seam(is_known, "mark_as_failure", f"{ours} mark_as_failure", "celery/backends/base.py")
    seam(isinstance(signals.task_failure, signals.Signal), "task_failure", ours, "celery/signals.py")
    names = inspect.signature(signals.task_failure.send).parameters
    seam("sender" in names, "task_failure.send", ours, "celery/utils/dispatch/signal.py")


def test_a_process_of_the_pool_sees_the_note_of_the_worker_and_the_exception_in_flight() -> None:
    """A retry does not take the note along. `tests/worker/test_reports.py` has tasks of the tracer."""
    app = application("memory://")
    app.conf.task_default_queue = "seams"  # the queues of that broker are those of the whole process
    message = SimpleNamespace(
        headers={"id": "1", "task": "limited"}, body=b"", payload=((), {}, {}), delivery_info={}, properties={}
    )
    message.content_type = message.content_encoding = None
    request = Request(message, app=app, hostname="seams@lab")
    request.delivery_info["note"] = [["name", None]]
    ours, theirs = "worker/reports.py", "celery/worker/request.py"
    sent = request.request_dict["delivery_info"]
    seam(sent == request.delivery_info, "request_dict['delivery_info']", f"{ours} mark", theirs)
    context = Context(request.request_dict, args=(), kwargs={})
    seam(context.delivery_info["note"] == [["name", None]], "delivery_info", f"{ours} _look", "celery/app/task.py")
    seam("note" not in repr(context.as_execution_options()), "as_execution_options", ours, "celery/app/task.py")

    seen: dict[str, Any] = {}
    error = RuntimeError("on purpose")

    @app.task(name="ends", bind=True, shared=False)
    def ends(self: Task, retries: bool) -> None:
        try:
            raise error
        except RuntimeError as exc:
            if retries:
                raise self.retry(exc=exc, countdown=9)  # noqa: B904  (as people write it)
            raise

    def on_failure(sender: Any, **kwargs: Any) -> None:
        seen["failure"] = sys.exc_info()[1], sender.request.delivery_info

    def on_retry(sender: Any, reason: Any, **kwargs: Any) -> None:
        seen["retry"] = reason.exc, sender.request.delivery_info

    signals.task_failure.connect(on_failure, sender=ends)
    signals.task_retry.connect(on_retry, sender=ends)
    for retries in (False, True):
        trace = build_tracer("ends", ends, app=app, eager=False, propagate=False)
        trace("1", (retries,), {}, {"delivery_info": {"note": 5}, "is_eager": False, "retries": 0, "id": "1"})
    for name in ("failure", "retry"):
        seam(seen[name] == (error, {"note": 5}), f"task_{name}", f"{ours} _{name}", "celery/app/trace.py")


def test_a_result_backend_asks_itself_whether_to_try_again() -> None:
    """And a database tries again by a decorator, before Celery 5.7."""
    pytest.importorskip("sqlalchemy")
    app = Celery("seams", backend="db+sqlite://", set_as_current=False)
    app.conf.result_backend_always_retry, app.conf.result_backend_max_retries = True, 0
    app.backend.exception_safe_to_retry = asked = Mock(return_value=False)
    app.backend._store_result = Mock(side_effect=OSError)
    with pytest.raises(OSError):  # noqa: PT011
        app.backend.mark_as_revoked("1")
    is_decorated = hasattr(type(app.backend)._store_result, "__wrapped__")

    theirs = "celery/backends"
    seam(asked.called, "exception_safe_to_retry", "worker/results.py", f"{theirs}/base.py")
    seam(is_decorated == (VERSION < (5, 7)), "_store_result", "worker/results.py", f"{theirs}/database/__init__.py")


def test_a_database_is_looked_at_for_its_tables_by_a_session_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sqlalchemy")
    from celery.backends.database.session import SessionManager

    looks: list[tuple[bool, Any]] = []
    note = lambda manager, engine: looks.append((manager.prepared, engine))  # noqa: E731
    monkeypatch.setattr(SessionManager, "prepare_models", note)
    app = Celery("seams", backend="db+sqlite://", set_as_current=False)
    app.conf.database_create_tables_at_setup = False
    app.backend.ResultSession(SessionManager()).close()
    ((is_prepared, engine),) = looks
    engine.connect().close()

    place = "celery/backends/database/session.py"
    seam(is_prepared is False, "SessionManager.prepare_models, prepared", "worker/results.py", place)


def test_a_channel_of_rabbitmq_knows_the_tags_of_its_consumers(rabbitmq: str) -> None:
    with Connection(rabbitmq) as connection, connection.channel() as channel:
        channel.queue_declare("seams", exclusive=True)
        for tag in ("one", "two"):
            channel.basic_consume("seams", consumer_tag=tag, callback=print)
        before = list(channel.callbacks)
        channel.basic_cancel("one")
        after = list(channel.callbacks)

    seam((before, after) == (["one", "two"], ["two"]), "callbacks", "broker/shutdown.py", "amqp/channel.py")


def test_the_socket_of_rabbitmq_can_have_another_timeout_for_a_moment(rabbitmq: str) -> None:
    with Connection(rabbitmq) as connection, connection.channel() as channel:
        transport = channel.connection.transport
        before = transport.sock.gettimeout()
        with transport.having_timeout(7.0):
            meanwhile = transport.sock.gettimeout()
        after = transport.sock.gettimeout()

    seam((meanwhile, after) == (7.0, before), "having_timeout", "broker/shutdown.py", "amqp/transport.py")


def test_all_steps_close_before_any_stops_and_only_at_the_end() -> None:
    order = Mock(steps=[Mock(name="first"), Mock(name="last")])
    for name, step in zip(("first", "last"), order.steps):
        order.attach_mock(step, name)
    blueprint = bootsteps.Blueprint(on_close=order.on_close)
    blueprint.start(order)
    blueprint.restart(order)
    calls = [name for name, *_ in order.mock_calls]
    seam(calls[-2:] == ["last.stop", "first.stop"], "restart", "worker/step.py", "celery/bootsteps.py")
    order.reset_mock()
    blueprint.stop(order)
    calls = [name for name, *_ in order.mock_calls]
    expected = ["on_close", "first.close", "last.close", "last.stop", "first.stop"]
    seam(calls == expected, "close", "worker/step.py", "celery/bootsteps.py")


@pytest.mark.skipif(VERSION < (5, 5), reason="soft shutdown came with Celery 5.5")
def test_a_cold_shutdown_asks_the_worker_to_wait_first() -> None:
    order = Mock()
    order.consumer.connection = None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        worker_app.on_cold_shutdown(order)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        state.should_terminate = None
    calls = [name for name, *_ in order.mock_calls if "cancel" in name or "soft" in name]
    seam(calls[0] == "wait_for_soft_shutdown", "wait_for_soft_shutdown", "worker/step.py", "celery/apps/worker.py")


def test_a_lost_connection_flushes_the_pool_and_jobs_know_whether_they_have_begun() -> None:
    made_up = Mock(task_buckets={}, pool=SimpleNamespace(flush=Mock()))
    Consumer.on_close(made_up)
    job = ApplyResult({}, None)
    seam(made_up.pool.flush.called, "pool.flush is looked up on the instance", "worker/lost_tasks.py", CONSUMER)
    where = "billiard/pool.py ApplyResult"
    seam(job._cache == {job._job: job}, "a job is in the pool's cache", "worker/lost_tasks.py", where)
    seam((job._accepted, job.ready()) == (False, False), "_accepted, ready", "worker/lost_tasks.py", where)
    seam(
        "_cache" in inspect.getsource(AsynPool.flush),
        "_pool._cache",
        "worker/lost_tasks.py",
        "celery/concurrency/asynpool.py",
    )


def test_a_consumer_without_an_event_loop_does_soon_what_is_pending() -> None:
    made_up = SimpleNamespace(hub=None, _pending_operations=deque())
    done: list[str] = []
    Consumer.call_soon(made_up, done.append, "acknowledged")
    seam(done == [], "call_soon", "worker/step.py close", CONSUMER)
    Consumer.perform_pending_operations(made_up)
    seam(done == ["acknowledged"], "perform_pending_operations", "worker/step.py close", CONSUMER)


def test_a_lost_connection_clears_the_buckets_and_stops_and_starts_the_step(lived: Any) -> None:
    seam(lived.built["events"] == [], "nothing starts before the worker does", "worker/step.py", "celery/bootsteps.py")
    life = ["start", "register", "clear_pending", "stop"]
    seam(
        lived.events == life * 2,
        f"twice {life}, was {lived.events}",
        "worker/step.py",
        f"{CONSUMER}, celery/worker/loops.py",
    )


def test_ticks_survive_the_reset_of_the_hub_and_the_qos_does_not(lived: Any) -> None:
    seam(
        lived.worker.exitcode == 0, "on_tick ended the second life", "worker/loop.py Alarm", "kombu/asynchronous/hub.py"
    )
    seam(
        lived.qos[0] is not lived.qos[1], "a new QoS each time", "broker/prefetch.py", "celery/worker/consumer/tasks.py"
    )


def test_the_callback_of_the_qos_knows_for_whom_the_broker_counts(lived: Any) -> None:
    known = inspect.getclosurevars(lived.qos[0].callback).nonlocals
    seam(
        known.get("qos_global") is False, "qos_global", "broker/prefetch.py renewal", "celery/worker/consumer/tasks.py"
    )


def test_the_consumer_has_what_the_step_reads(lived: Any) -> None:
    consumer = lived.worker.consumer
    names: tuple[str, ...] = ("hostname", "on_task_request", "qos", "hub", "app", "connection_errors", "channel_errors")
    seam(all(hasattr(consumer, name) for name in names), f"attributes {names}", "worker/step.py", CONSUMER)
    names = ("max_tasks_per_child", "max_memory_per_child", "autoscaler", "semaphore", "pool_cls", "pool_putlocks")
    seam(
        all(hasattr(consumer.controller, name) for name in names),
        f"{names}",
        "worker/gc_freeze.py, worker/step.py",
        CONSUMER,
    )
    seam(
        consumer.pool.num_processes == 1 and consumer.pool.active in (True, False),
        "pool.num_processes",
        "worker/pool.py CeleryPool",
        "celery/concurrency/base.py",
    )
    seam(OSError in consumer.connection_errors, "connection_errors are exceptions", "worker/step.py", CONSUMER)
    seam(
        lived.stats["probe"] == {"held": 3},
        "Step.info is merged into the stats",
        "worker/step.py",
        "celery/bootsteps.py",
    )


@pytest.mark.parametrize("kind", ["gevent", "eventlet"])
def test_a_pool_of_greenlets_has_a_size_beside_the_number_that_run(kind: str) -> None:
    pytest.importorskip(kind)
    with warnings.catch_warnings():  # nothing is patched here
        warnings.simplefilter("ignore")
        pool = import_module(f"celery.concurrency.{kind}").TaskPool(limit=3)
    pool.on_start()
    seam(pool.is_green, "pool.is_green", "worker/pool.py CeleryPool", "celery/concurrency/base.py")
    seam(pool._pool.size == 3, "pool._pool.size", "worker/pool.py CeleryPool", f"celery/concurrency/{kind}.py")


def test_a_pool_hands_what_its_target_returns_to_the_handler_of_success(lived: Any) -> None:
    applied = lived.applied
    returned: list[Any] = []
    handlers = applied.get("callback"), applied.get("error_callback")
    where = "celery/worker/request.py"
    seam(all(map(callable, handlers)), "pool.apply_async is looked up on the instance", "worker/lost_tasks.py", where)
    seam(
        handlers[1] == lived.items[0][0].on_failure, "error_callback=request.on_failure", "worker/lost_tasks.py", where
    )
    apply_target(lambda: ExceptionInfo, callback=returned.append)
    seam(returned == [ExceptionInfo], "callback(target())", "worker/lost_tasks.py", "celery/concurrency/base.py")


@pytest.mark.parametrize("error", [WorkerLostError("lost"), RuntimeError("on purpose")])
def test_a_request_takes_word_that_its_task_is_lost(error: Exception) -> None:
    app = application("memory://")
    calls: list[Any] = []
    message = SimpleNamespace(
        headers={"id": "1", "task": "limited"}, body=b"", payload=((), {}, {}), delivery_info={}, properties={}
    )
    message.content_type = message.content_encoding = None
    request = Request(message, app=app, on_ack=lambda *args: calls.append("ack"), hostname="seams@lab")
    state.task_reserved(request)
    state.task_accepted(request)
    try:
        raise error
    except Exception:
        request.on_failure(ExceptionInfo(sys.exc_info()))
    left = request in state.reserved_requests | state.active_requests or request.id in state.requests
    seam(not left, "on_failure(ExceptionInfo(exc_info))", "worker/lost_tasks.py", "celery/worker/request.py")


@pytest.mark.parametrize("revoked", ["a", ["a", "x"], ["x"], []])
@pytest.mark.parametrize("stamp", ["a", ["a", "b"], ["b"], None])
def test_a_stamp_is_revoked_as_celery_has_it(revoked: Any, stamp: Any) -> None:
    app = application("memory://")
    headers = {"id": "2", "task": "limited", "stamped_headers": ["group"], "stamps": {"group": stamp}}
    message = SimpleNamespace(headers=headers, body=b"", payload=((), {}, {}), delivery_info={}, properties={})
    message.content_type = message.content_encoding = None
    request = Request(message, app=app, on_ack=lambda *args: None, hostname="seams@lab")
    state.revoked_stamps["group"] = revoked
    try:
        ours, theirs = _is_revoked_by_stamp(request), bool(request.revoked())
    finally:
        state.revoked_stamps.clear()
    seam(ours == theirs, "Request.revoked by stamps", "worker/pool.py _is_revoked_by_stamp", "celery/worker/request.py")


def test_worker_init_comes_before_the_blueprint_and_swallows_all_but_system_exit() -> None:
    seen = []

    def listener(sender: Any, **kwargs: Any) -> None:
        seen.append((sender.options.get("probe"), sender.disable_rate_limits, sender.blueprint))
        raise (ValueError if len(seen) == 1 else SystemExit)("no")

    signals.worker_init.connect(listener, weak=False)
    try:
        build(application("redis://localhost:1"))
        with pytest.raises(SystemExit, match="no"):
            build(application("redis://localhost:1"))
    finally:
        signals.worker_init.disconnect(listener)
    where = "celery/worker/worker.py and celery/utils/dispatch/signal.py"
    seam(seen[0] == (OPTION, False, None), "options and disable_rate_limits, no blueprint yet", "activation.py", where)


def test_control_commands_are_found_in_the_panel_when_they_are_called() -> None:
    consumer = build(application("redis://localhost:1")).consumer
    handlers = Pidbox(consumer).node.handlers
    state = SimpleNamespace(app=consumer.app, consumer=consumer)
    unknown = Panel.data["rate_limit"](state, "no such task", "1/s")
    seam(handlers is Panel.data, "the pidbox holds Panel.data itself", "worker/control.py", "celery/worker/pidbox.py")
    seam(
        nok("x") == {"error": "x"} and "error" in unknown,
        "nok, rate_limit",
        "worker/control.py",
        "celery/worker/control.py",
    )


def test_the_node_of_the_pidbox_sees_each_message_with_its_headers(lived: Any) -> None:
    boxes = [step.box for step in lived.worker.consumer.steps if hasattr(step, "box")]
    seam(len(boxes) == 1, "one step with a box", "worker/step.py start", "celery/worker/consumer/control.py")
    heard: list[Any] = []
    node = boxes[0].node
    node.handle_message = lambda body, message: heard.append((body["method"], sorted(message.headers)))
    message = SimpleNamespace(headers={"clock": 7, "expires": 1.0})
    boxes[0].on_message({"method": "ping"}, message)
    seam(heard == [("ping", ["clock", "expires"])], "handle_message", "worker/pidbox.py", "celery/worker/pidbox.py")


def test_a_broadcast_has_a_clock_and_an_expiry() -> None:
    sent: list[Any] = []
    app = application("memory://")
    mailbox = app.control.mailbox
    with app.connection_for_write() as connection, connection.channel() as channel:
        queue = mailbox(connection).get_queue("seams@lab")
        queue(channel).declare()
        app.control.rate_limit("limited", "1/s", connection=connection)
        message = queue(channel).get()
        sent.append(message.headers)
    seam(sent and sent[0]["clock"] and sent[0]["expires"] > 0, "headers", "worker/pidbox.py heard", "kombu/pidbox.py")


def test_a_redis_channel_has_an_index_of_what_is_not_acknowledged(lived: Any) -> None:
    app = application("redis://localhost:1")
    transport = app.connection_for_read().transport
    channel = transport.Channel
    names = (
        *("unacked_index_key", "visibility_timeout", "conn_or_acquire", "max_connections", "basic_reject"),
        *("_create_client", "pool"),
    )
    seam(
        all(hasattr(channel, name) for name in names),
        "Channel",
        "broker/redis.py",
        "kombu/transport/redis.py",
    )
    seam(lived.items[0][0].message.delivery_tag, "request.message", "broker/redis.py", "celery/worker/request.py")


def test_annotations_for_all_tasks_can_be_asked_for() -> None:
    app = Celery("seams", set_as_current=False)
    app.conf.task_annotations = [{"*": {"rate_limit": "1/s"}}, {"other": {"rate_limit": "2/s"}}]
    found = [annotation.annotate_any() for annotation in app.annotations]
    seam(found == [{"rate_limit": "1/s"}, None], "annotate_any", "declared_limits.py", "celery/app/annotations.py")


def test_the_base_class_of_all_tasks_tells_its_rate() -> None:
    class Base(Task):
        rate_limit = "2/s"

    app = Celery("seams", set_as_current=False, task_cls=Base)
    where = "celery/app/base.py"
    seam(app.Task.rate_limit == "2/s", "app.Task", "declared_limits.py", where)
    seam(
        app.tasks["celery.chord_unlock"].rate_limit == "2/s",
        "Celery's own tasks inherit it",
        "declared_limits.py",
        where,
    )


def test_registered_shows_an_attribute_of_the_task() -> None:
    app = Celery("seams", set_as_current=False)
    app.tasks["celery.chord_unlock"].rate_limit = "7/d"
    found = Panel.data["registered"](SimpleNamespace(app=app), ["rate_limit"], builtins=True)
    shown = "celery.chord_unlock [rate_limit=7/d]" in found
    seam(shown, "registered", "declared_limits.py", "celery/worker/control.py")


def test_the_namespace_of_settings_is_their_prefix_once_they_are_read() -> None:
    app = Celery("seams", set_as_current=False)
    app.config_from_object({"CELERY_BROKER_URL": "redis://h"}, namespace="CELERY")
    seam(app.conf.broker_url == "redis://h", "a namespace", "settings.py", "celery/utils/collections.py")
    seam(app.conf.prefix == "CELERY_", "conf.prefix", "settings.py", "celery/utils/collections.py")
    seam("CELERY_BROKER_URL" in list(app.conf), "names are listed as written", "settings.py", "celery/app/utils.py")


def test_the_command_line_loads_our_entry_point_and_knows_our_options() -> None:
    found: Any = entry_points()
    commands = found.select(group="celery.commands") if hasattr(found, "select") else found["celery.commands"]
    ours = [entry for entry in commands if entry.name == "global-rate"]
    command = ours[0].load() if ours else None
    options = {name for option in worker_command.params for name in option.opts if isinstance(option, CeleryOption)}
    is_ours = command is not None and "check" in command.commands
    seam(is_ours, "entry points, known once it is installed again", "cli/main.py", "celery/bin/celery.py")
    seam({"--global-rate", "--global-rate-url"} <= options, "worker.params", "cli/main.py", "celery/bin/worker.py")


@pytest.mark.parametrize(("value", "expected"), [(4, (10, 4)), (0, (0, 0))])
def test_a_prefetch_count_goes_up_and_down_unless_it_is_zero(value: int, expected: tuple[int, int]) -> None:
    sent: list[int] = []
    qos = QoS(sent.append, value)
    qos.increment_eventually(6)
    raised = qos.value
    qos.decrement_eventually(6)
    seam((raised, qos.value) == expected and not sent, "QoS", "broker/prefetch.py", "kombu/common.py")


def test_a_qos_without_a_past_tells_the_broker_at_the_next_turn() -> None:
    sent: list[int] = []
    qos = QoS(lambda prefetch_count: sent.append(prefetch_count), 4)
    qos.update()
    qos.prev = None
    qos.update()
    seam(sent == [4, 4], "QoS.prev", "broker/prefetch.py renewal", "kombu/common.py")


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def test_a_hub_calls_readers_until_they_are_removed_or_it_is_reset(hub: Hub) -> None:
    reader, writer = socket.socketpair()
    heard: list[bytes] = []
    forgets: tuple[Callable[[int], object], ...] = (hub.remove, lambda fd: hub.reset())
    with reader, writer:
        for forget in forgets:
            hub.add_reader(reader.fileno(), lambda: heard.append(reader.recv(1)))
            writer.send(b"x")
            hub.run_once()
            forget(reader.fileno())
            seam(reader.fileno() not in hub.readers, "remove, reset", "storage/waker.py", "kombu/asynchronous/hub.py")
            hub._loop = None
    seam(
        heard == [b"x", b"x"], "add_reader", "storage/waker.py, storage/hub_connection.py", "kombu/asynchronous/hub.py"
    )


def test_timers_are_a_heap_on_the_monotonic_clock_and_ten_fire_in_a_turn(hub: Hub) -> None:
    fired: list[int] = []
    due = time.monotonic() - 1
    entries = [hub.timer.call_at(due + index / 100, fired.append, (index,)) for index in range(12)]
    hub.timer.cancel(entries[0])
    seam(
        hub.timer._queue[0][0] == due,
        "timer._queue[0][0] is the instant",
        "worker/loop.py",
        "kombu/asynchronous/timer.py",
    )
    asks_for = hub.fire_timers()
    seam(
        fired == list(range(1, 11)),
        "cancel; ten a turn",
        "worker/loop.py Alarm",
        "kombu/asynchronous/hub.py fire_timers",
    )
    seam(asks_for == 1, "a second although one is due", "worker/loop.py Alarm", "kombu/asynchronous/hub.py fire_timers")


@pytest.fixture
def wire(redis_server: Server) -> Iterator[Any]:
    """An open connection that never waits."""
    pool = redis.Redis.from_url(f"{redis_server.url}/9", protocol=2, socket_connect_timeout=1.0).connection_pool
    connection: Any = pool.make_connection()
    connection.connect()
    connection._sock.settimeout(0)
    yield connection
    connection.disconnect()


def test_redis_py_keeps_what_has_come_of_an_answer_and_says_that_it_would_block(wire: Any) -> None:
    command = wire.pack_command("EVAL", "return {1, string.rep('x', 16 * 1024 * 1024), 2}", 0)
    wire.send_packed_command(command, check_health=False)
    waits, reply, file = 0, None, wire._sock.fileno()
    while reply is None:
        try:
            reply = wire.read_response(disconnect_on_error=False)
        except (redis.RedisError, OSError) as exc:
            waits += 1
            seam(
                isinstance(exc.__context__, WOULD_BLOCK),
                "__context__",
                "storage/hub_connection.py",
                "redis/_parsers/socket.py",
            )
            seam(select.select([file], [], [], 10)[0], "still open", "storage/hub_connection.py", "redis/connection.py")
    seam(waits, "an answer in pieces raises", "storage/hub_connection.py", "redis/_parsers/resp2.py")
    seam(
        reply == [1, b"x" * 16 * 1024 * 1024, 2],
        "nothing is lost",
        "storage/hub_connection.py",
        "redis/_parsers/resp2.py",
    )


def test_redis_py_raises_error_replies_and_stays_connected_and_tells_a_lost_connection(wire: Any) -> None:
    for command, error in ((("EVALSHA", "0" * 40, 0), redis.exceptions.NoScriptError), (("CLIENT", "ID"), None)):
        wire.send_packed_command(wire.pack_command(*command), check_health=False)
        select.select([wire._sock], [], [], 10)
        if error:
            with pytest.raises(error):
                wire.read_response(disconnect_on_error=False)
    own_id = wire.read_response(disconnect_on_error=False)
    wire.send_packed_command(wire.pack_command("CLIENT", "KILL", "ID", own_id, "SKIPME", "no"), check_health=False)
    select.select([wire._sock], [], [], 10)
    wire.read_response(disconnect_on_error=False)  # the answer to KILL, then the end
    select.select([wire._sock], [], [], 10)
    with pytest.raises(redis.ConnectionError) as lost:
        wire.read_response(disconnect_on_error=False)
    seam(
        not isinstance(lost.value.__context__, WOULD_BLOCK),
        "a lost one",
        "storage/hub_connection.py",
        "redis/_parsers/socket.py",
    )


def test_a_redis_channel_makes_a_client_of_its_pool_for_each_use(empty_redis: Server) -> None:
    """broker/redis.py keeps one: it has nothing but the pool."""
    with Connection(f"{empty_redis.url}/0") as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as client, channel.conn_or_acquire() as another:
            seam(client is not another, "_create_client", "broker/redis.py", "kombu/transport/redis.py")
            seam(client.connection_pool is channel.pool, "pool", "broker/redis.py", "kombu/transport/redis.py")
            seam(client.connection is None, "connection", "broker/redis.py", "redis/client.py")
        own = channel.client.connection_pool
        seam(own is not channel.pool, "client", "broker/redis.py", "kombu/transport/redis.py")


def test_a_redis_channel_keeps_what_it_has_brought_by_tag_and_gives_it_back_by_tag(empty_redis: Server) -> None:
    """broker.py, kombu/transport/virtual/base.py: a lost connection's tags are looked up in `qos._delivered`."""
    with Celery(broker=f"{empty_redis.url}/0", set_as_current=False).connection_for_read() as connection:
        channel = connection.default_channel
        queue = connection.SimpleQueue("seam")
        queue.put("one")
        message = queue.get(timeout=2)
        brought = message.channel.qos._delivered
        tag = message.delivery_tag

        assert connection._default_channel is channel
        assert list(brought) == [tag]
        with channel.conn_or_acquire() as client:
            assert client.zscore(channel.unacked_index_key, tag) is not None
            channel.qos.restore_by_tag(tag, client)
            assert client.zscore(channel.unacked_index_key, tag) is None
        del brought[tag]
        assert queue.get(timeout=2).payload == "one"
        queue.clear()
