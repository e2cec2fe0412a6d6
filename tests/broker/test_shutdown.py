"""What is held when the worker ends, or its connection is lost: on channels that are made up."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from celery_global_rate.broker.redis import LostConnections
from celery_global_rate.broker.shutdown import requeue_held

from .fakes import Channel, Message, RedisChannel, consumer_on, held


def test_all_go_back_to_rabbitmq_in_order_once_no_more_can_come() -> None:
    """But for what was acknowledged meanwhile."""
    log: list[str] = []
    one, done, two = (Message(tag, log=log) for tag in ("one", "done", "two"))
    done.ack()
    requeue_held(consumer_on("amqp", Channel(), log=log), True, lambda: held(0.0, one, done, two))

    assert log == ["cancel", "requeue one", "requeue two"]


def test_all_go_to_the_head_of_their_queue_on_redis_the_last_one_first() -> None:
    log: list[str] = []
    channel = RedisChannel("one", "two")
    requeue_held(
        consumer_on("redis", channel, log=log),
        True,
        lambda: held(0.0, Message("one", log=log), Message("two", log=log)),
    )

    assert (channel.restored, log) == (["two", "one"], ["cancel"])
    assert not channel.qos._delivered, "kombu would restore them once more when the worker ends"


def test_what_rabbitmq_delivers_until_it_confirms_the_cancel_goes_back_too() -> None:
    log: list[str] = []
    requests = held(0.0, Message("one", log=log))
    consumer = consumer_on("amqp", Channel(), log=log)
    consumer.task_consumer.cancel = lambda: requests.extend(held(0.0, Message("two", log=log)))
    requeue_held(consumer, True, lambda: requests)

    assert log == ["requeue one", "requeue two"]


def test_a_consumer_whose_restart_was_interrupted_by_a_signal_is_cancelled_too() -> None:
    """It has two tags then, of which Celery knows the new one."""
    log: list[str] = []
    channel = Channel()
    channel.callbacks = {"old": print}  # type: ignore[attr-defined]
    channel.basic_cancel = lambda tag: log.append(f"cancel {tag}")  # type: ignore[attr-defined]
    requeue_held(consumer_on("amqp", channel, log=log), True, lambda: held(0.0, Message("one", log=log)))

    assert log == ["cancel", "cancel old", "requeue one"]


def test_rabbitmq_has_longer_to_confirm_than_a_loop_waits_for_messages() -> None:
    """The signal interrupts such a wait, and its tenth of a second was the timeout of the confirmation too."""
    log: list[str] = []
    channel = Channel()

    @contextmanager
    def having_timeout(timeout: float) -> Iterator[None]:
        log.append(f"within {timeout:g} s")
        yield
        log.append("as before")

    transport = SimpleNamespace(having_timeout=having_timeout)
    channel.connection = SimpleNamespace(transport=transport)  # type: ignore[attr-defined]
    requeue_held(consumer_on("amqp", channel, log=log), True, lambda: held(0.0, Message("one", log=log)))

    assert log == ["within 5 s", "cancel", "as before", "requeue one"]


def test_nothing_held_leaves_the_consumer_alone() -> None:
    log: list[str] = []
    requeue_held(consumer_on("amqp", Channel(), log=log), False, list)

    assert log == []


def test_without_a_consumer_they_return_with_the_connection() -> None:
    log: list[str] = []
    consumer = consumer_on("amqp", Channel(), log=log)
    consumer.task_consumer = None
    requeue_held(consumer, True, lambda: held(0.0, Message("one", log=log)))

    assert log == []


def test_a_broker_that_is_gone_is_logged_and_does_not_keep_the_worker_from_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    channel = RedisChannel("one")
    channel.error = OSError("secret")
    requeue_held(consumer_on("redis", channel), True, lambda: held(0.0, Message("one")))

    assert "could not be returned to the broker: OSError" in caplog.text
    assert "secret" not in caplog.text


def test_what_was_held_when_a_redis_broker_was_lost_is_requeued_once_it_is_back() -> None:
    """In its order, and only what nobody has taken since: not what was acknowledged, nor what is delivered again."""
    channel = RedisChannel("one", "acknowledged", "taken", "two")
    requests = held(0.0, *(Message(tag) for tag in ("one", "acknowledged", "taken", "two")))
    lost = LostConnections(lambda: requests)
    connection = consumer_on("redis", channel).connection
    lost.watch(connection)
    connection.collect()
    channel.taken.update(taken=time.time() + 60)
    del channel.taken["acknowledged"]
    fresh = RedisChannel()
    fresh.taken = channel.taken
    lost.requeue(SimpleNamespace(default_channel=fresh))
    again = list(fresh.restored)
    lost.requeue(SimpleNamespace(default_channel=fresh))

    assert again == ["two", "one"]
    assert fresh.restored == again
    assert not channel.qos._delivered


def test_a_lost_connection_is_given_up_for_good_even_by_an_error() -> None:
    """Celery collects it twice, and would look for the channel again."""
    connection = consumer_on("redis", RedisChannel()).connection

    def collect() -> None:
        raise AttributeError("no way to its server")

    connection.collect = collect
    LostConnections(list).watch(connection)
    with pytest.raises(AttributeError):
        connection.collect()

    assert connection._default_channel is None


def test_the_log_is_silent_where_all_goes_well(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        requeue_held(consumer_on("amqp", Channel()), True, lambda: held(0.0, Message("one")))

    assert caplog.text == ""
