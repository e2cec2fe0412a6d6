"""Held messages and a broker that waits for them only so long."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from testbed.cluster import Cluster
from testbed.server import DURABLE, RabbitMQ, Redis

from ..conftest import KNOWS_QUORUM_QUEUES, Figures, Server, rabbitmq_node

VISIBILITY_S = 5
CONSUMER_TIMEOUT_S = 10


@pytest.mark.long
@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_a_message_that_is_held_longer_than_the_visibility_timeout_runs_once(
    empty_redis: Server, figures: Figures, pool: str
) -> None:
    """6 tasks at 12/m with a visibility timeout of 5 s, which is looked after every 2 s: 6 executions, in 25 to 27 s.

    Beside it, at the same time, stock workers: each has the limit for itself, so their last task waits for 15 s at the
    most, and is delivered again meanwhile.
    """
    conf = {"broker_transport_options": {"visibility_timeout": VISIBILITY_S}}
    with (
        Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", "12/m", conf=conf) as here,
        Cluster(f"{empty_redis.url}/2", None, "12/m", extension=False, conf=conf) as stock,
        here.sweeping(),
        stock.sweeping(),
    ):
        for cluster in (here, stock):
            cluster.send("limited", 6)
            cluster.start(2, pool=pool)
        here.wait_for(6, 40)
        time.sleep(VISIBILITY_S + 2)
        starts = here.instants("start")
        runs = Counter(record.task_id for record in here.records("start", "limited"))
        stock_runs = Counter(record.task_id for record in stock.records("start", "limited"))
    figures(
        f"{pool}: 6 tasks, held for 25 s: {sum(runs.values())} executions here, {sum(stock_runs.values())} in stock"
    )

    assert sorted(runs.values()) == [1] * 6
    assert 24 <= starts[-1] - starts[0] <= 27
    assert sum(stock_runs.values()) > 6


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.slow)])
def test_held_messages_go_back_to_rabbitmq_and_come_again(rabbitmq: str, empty_redis: Server, pool: str) -> None:
    """9 tasks at 2/s that go back every second, as for a consumer timeout of 2 s: each runs once, in order, for 4 s.

    Of the first second's 7 that are still held 5 are there in the next, then 3, then 1.
    """
    conf = {"global_rate_consumer_timeout": 2}
    with Cluster(rabbitmq, f"{empty_redis.url}/1", "2/s", conf=conf, loglevel="INFO") as cluster:
        ids = cluster.send("limited", 9)
        cluster.start(1, pool=pool)
        cluster.wait_for(9, 10)
        starts = cluster.records("start", "limited")
        log = cluster.log("w0")

    assert [record.task_id for record in starts] == ids
    assert 3.9 <= starts[-1].instant - starts[0].instant <= 4.6
    assert 9 + 7 <= log.count("received") <= 9 + 7 + 5 + 3 + 1 + 4
    assert log.count("held messages are requeued") == 1


@pytest.fixture(scope="module")
def impatient_rabbitmq() -> Iterator[RabbitMQ]:
    """A node that waits 10 s for an acknowledgement, and looks every second."""
    with rabbitmq_node(consumer_timeout=CONSUMER_TIMEOUT_S * 1000, channel_tick_interval=1000) as server:
        yield server


@pytest.mark.long
@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_messages_that_are_held_longer_than_the_consumer_timeout(
    impatient_rabbitmq: RabbitMQ, empty_redis: Server, figures: Figures, pool: str
) -> None:
    """24 tasks at 24/m with a consumer timeout of 10 s, in one worker: the last is held for 57.5 s, each runs once.

    They go back every 5 s, 11 times, and are redelivered in order. Two more with an ETA of 8 s were with the worker
    for all that time when they are held, and go back at once. Stock loses its channel after 10 to 12 s.
    """
    with Cluster(
        impatient_rabbitmq.url, None, "24/m", extension=False, conf={"worker_prefetch_multiplier": 12}
    ) as stock:
        stock.send("limited", 24)
        stock.start(1)
        stock.wait(lambda: "PRECONDITION_FAILED" in stock.log("w0"), 20)
        figures(f"stock: channel lost after {len(stock.records('start'))} starts")
    impatient_rabbitmq.purge()
    conf = {"global_rate_consumer_timeout": CONSUMER_TIMEOUT_S}
    with Cluster(impatient_rabbitmq.url, f"{empty_redis.url}/1", "24/m", conf=conf, loglevel="INFO") as here:
        ids = here.send("limited", 24) + here.send("limited", 2, countdown=8)
        here.start(1, pool=pool)
        here.wait_for(26, 90)
        time.sleep(2)
        starts = here.records("start", "limited")
        log = here.log("w0")
    deliveries = log.count("received")
    last_s = starts[-1].instant - starts[0].instant
    figures(f"{pool}: 26 tasks, held for up to {last_s:.1f} s: {len(starts)} starts, {deliveries} deliveries")

    assert [record.task_id for record in starts] == ids
    assert "PRECONDITION_FAILED" not in log
    assert 26 + 5 * 11 <= deliveries <= 26 * 13


@pytest.mark.long
@KNOWS_QUORUM_QUEUES
def test_a_quorum_queue_that_drops_what_comes_too_often(
    impatient_rabbitmq: RabbitMQ, empty_redis: Server, figures: Figures
) -> None:
    """18 tasks at 24/m that may come 5 times, and go back every 5 s: the last would come 9 times; each runs once."""
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 4}
    queue = {"exchange": "quorum", "routing_key": "quorum", "queue_arguments": arguments}
    conf = {
        "global_rate_consumer_timeout": CONSUMER_TIMEOUT_S,
        "task_queues": {"quorum": queue},
        "task_default_queue": "quorum",
    }
    impatient_rabbitmq.purge()
    with Cluster(impatient_rabbitmq.url, f"{empty_redis.url}/1", "24/m", conf=conf, loglevel="INFO") as cluster:
        ids = cluster.send("limited", 18)
        cluster.start(1)
        cluster.wait_for(18, 70)
        time.sleep(5)
        runs = Counter(record.task_id for record in cluster.records("start", "limited"))
        log = cluster.log("w0")
    figures(f"{len(runs)} of 18 tasks ran, {log.count('received')} deliveries")

    assert runs == Counter(ids)
    assert log.count("copies of held ones go to its end") == 1


@pytest.mark.long
def test_our_commands_to_a_redis_broker_have_its_key_prefix(own_redis: Redis, figures: Figures) -> None:
    """50 tasks at 4/s with `global_keyprefix`: held beyond a visibility timeout, a restart of the broker, and TERM.

    Held messages are renewed (`ZADD`), requeued after the restart (`ZSCORE`), and requeued when the worker ends, the
    latter two by kombu's own way to restore. Each task runs once: a message whose command lacked the prefix would be
    delivered twice, or stay among the unacknowledged.
    """
    options = {"visibility_timeout": 3, "unacked_mutex_expire": 1, "global_keyprefix": "shop:"}
    broker = Redis(options=DURABLE)
    conf = {"broker_transport_options": options}
    with contextlib.closing(broker.start()):
        url = f"{broker.url}/0"
        with (
            Cluster(url, f"{own_redis.url}/1", "4/s", conf=conf, lifelines=True) as cluster,
            cluster.sweeping(0.5),
        ):
            cluster.start(1)
            ids = cluster.send("limited", 50)
            cluster.wait_for(20, 10)
            broker.restart()
            cluster.wait_for(2, 20, "connected", "-")
            cluster.wait_for(30, 10)
            cluster.start(1)
            assert cluster.stop("w0") == 0
            with contextlib.suppress(TimeoutError):
                cluster.wait_for(50, 15)
            time.sleep(0.5)
            runs = Counter(record.task_id for record in cluster.records("start", "limited"))
            keys = [key.decode() for key in broker.client().scan_iter()]
    figures(f"with a prefix: {len(runs)} of 50 have run, {sum(runs.values()) - len(runs)} of them again")

    assert runs == Counter(ids)
    assert [key for key in keys if not key.startswith("shop:")] == []
    assert "shop:unacked" not in keys
