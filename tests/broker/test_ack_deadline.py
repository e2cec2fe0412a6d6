"""When held messages are renewed or requeued, by broker: on a consumer that is made up, with clocks that are given."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from celery_global_rate.broker.ack_deadline import RETRY_S, AckDeadline

from .fakes import VISIBILITY_S, Channel, Message, RedisChannel, consumer_on, held

CONSUMER_TIMEOUT_S = 1800.0
QUORUM = {"x-queue-type": "quorum"}


def on_rabbitmq(timeout_s: float, arguments: dict[str, Any] | None = None) -> tuple[AckDeadline, Channel]:
    """The deadline of a worker that is connected to RabbitMQ."""
    channel = Channel()
    deadline = AckDeadline(consumer_on("amqp", channel, arguments), timeout_s)
    deadline.begin()
    return deadline, channel


@pytest.mark.parametrize(
    ("timeout_s", "arguments", "shortest_s"),
    [(1800.0, None, 1800.0), (1800.0, {"x-consumer-timeout": 60_000}, 60.0), (0, {"x-consumer-timeout": 8000}, 8.0)],
)
def test_all_are_requeued_on_rabbitmq_at_half_the_shortest_timeout(
    timeout_s: float, arguments: dict[str, Any] | None, shortest_s: float
) -> None:
    deadline, _ = on_rabbitmq(timeout_s, arguments)
    old, new = Message("old"), Message("new")
    requests = held(100.0, old) + held(100.0 + shortest_s / 4, new)
    early = deadline.keep_up(100.0 + shortest_s / 2 - 0.001, requests)

    assert (early, old.became, deadline.until) == (False, "", 100.0 + shortest_s / 2)

    late = deadline.keep_up(100.0 + shortest_s / 2, requests)

    assert (late, old.became, new.became) == (True, "requeued", "requeued")


def test_one_with_an_eta_may_be_due_as_soon_as_it_is_held() -> None:
    deadline, _ = on_rabbitmq(CONSUMER_TIMEOUT_S)
    deadline.keep_up(1000.0, [])
    deadline.hold(held(50.0, Message("eta"))[0])

    assert deadline.until == 50.0 + CONSUMER_TIMEOUT_S / 2


def test_rabbitmq_that_waits_forever_needs_nothing() -> None:
    deadline, _ = on_rabbitmq(0)

    assert not deadline.keep_up(1e6, held(0.0, Message("old")))
    assert deadline.until == float("inf")


@pytest.mark.parametrize(("limit", "deliveries", "is_copied"), [(20, 9, False), (20, 10, True), (-1, 99, False)])
def test_a_message_that_was_delivered_half_as_often_as_it_may_be_is_copied(
    limit: int, deliveries: int, is_copied: bool
) -> None:
    deadline, channel = on_rabbitmq(60.0, {**QUORUM, "x-delivery-limit": limit})
    worn, fresh = Message("worn", deliveries), Message("fresh")
    deadline.keep_up(30.0, held(0.0, worn, fresh))
    copies = [("worn", {"id": "worn"}, "celery")] if is_copied else []

    assert channel.copies == copies
    assert fresh.became == "requeued"
    assert worn.became == ("acknowledged" if is_copied else "requeued")


def test_a_lost_connection_to_rabbitmq_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    deadline, _ = on_rabbitmq(60.0)
    message = Message("lost")
    message.requeue = lambda: (_ for _ in ()).throw(OSError("gone"))  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO):
        deadline.keep_up(30.0, held(0.0, message))

    assert "could not be returned to RabbitMQ: OSError('gone')" in caplog.text


def test_the_timeout_of_all_is_renewed_on_redis_every_third_of_it() -> None:
    channel = RedisChannel()
    deadline = AckDeadline(consumer_on("redis", channel), CONSUMER_TIMEOUT_S)
    deadline.begin()
    before = time.time()

    assert not deadline.keep_up(1000.0, held(0.0, Message("one"), Message("two")))
    assert deadline.until == 1000.0 + VISIBILITY_S / 3
    (key, entries, how), *others = channel.written
    assert (key, how, others) == ("unacked_index", {"xx": True}, [])
    assert entries.keys() == {"one", "two"}
    assert before <= min(entries.values()) <= max(entries.values()) <= time.time()

    deadline.hold(held(0.0, Message("eta"))[0])

    assert deadline.until == 1000.0 + VISIBILITY_S / 3


def test_after_an_error_it_is_tried_again_soon() -> None:
    channel = RedisChannel()
    channel.error = OSError("gone")
    deadline = AckDeadline(consumer_on("redis", channel), CONSUMER_TIMEOUT_S)
    deadline.begin()
    with pytest.raises(OSError, match="gone"):
        deadline.keep_up(1000.0, held(0.0, Message("one")))

    assert deadline.until == 1000.0 + RETRY_S


def test_a_worker_without_consumer_waits_for_one() -> None:
    deadline, _ = on_rabbitmq(CONSUMER_TIMEOUT_S)
    deadline._consumer.task_consumer = None
    old = Message("old")

    assert not deadline.keep_up(1e6, held(0.0, old))
    assert (old.became, deadline.until) == ("", 1e6 + RETRY_S)


def test_other_brokers_need_nothing() -> None:
    deadline = AckDeadline(consumer_on("memory", object()), CONSUMER_TIMEOUT_S)
    deadline.begin()
    request: Any = SimpleNamespace()
    deadline.hold(request)

    assert not deadline.keep_up(1e6, [request])
    assert deadline.until == float("inf")
