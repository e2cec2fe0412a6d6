"""A backlog of limited tasks in one queue leaves the other queues of the same workers alone, on real brokers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import signals
from kombu import Connection, Consumer, Exchange, Queue

from celery_global_rate.broker.queues import Queues
from testbed.cluster import Cluster
from testbed.proxy import Proxy
from testbed.server import RabbitMQ

from ..conftest import KNOWS_QUORUM_QUEUES, Figures, Server

#: Workers of this file consume these two.
BOTH = ("-Q", "slow,others")
FEW = {"global_rate_max_held": 20}
OTHER_BROKERS = ["rabbitmq", pytest.param("filesystem", marks=pytest.mark.long)]

Broker = Callable[[str], str]


@pytest.fixture
def broker(request: pytest.FixtureRequest, empty_redis: Server) -> Broker:
    """The URL of an empty broker of a kind, as often as it is asked for."""

    def url(kind: str) -> str:
        for database in (0, 1):
            empty_redis.client(database).flushdb()
        if kind == "rabbitmq":
            server: RabbitMQ = request.getfixturevalue("rabbitmq_server")
            server.purge()
            return server.url
        return "filesystem://" if kind == "filesystem" else f"{empty_redis.url}/0"

    return url


class Request:
    """What is read of a request: if its text says so, it has an ETA."""

    def __init__(self, message: Any) -> None:
        self.eta = "later" if message.payload == "later" else None
        self.delivery_info = message.delivery_info


class Worker:
    """What is known of a worker's consumer here: a connection and two queues, and what has come from them."""

    hub = None

    def __init__(self, url: str, *queues: Queue) -> None:
        options = {"data_folder_in": "/dev/null", "data_folder_out": "/dev/null"} if url.startswith("file") else {}
        self.connection = Connection(url, transport_options=options)
        self.queues = Queues(self)
        self.came: list[tuple[str, str | None]] = []
        self.later: list[Request] = []
        self.task_consumer: Consumer | None = None
        self.queues.begin()
        self.task_consumer = Consumer(self.connection.default_channel, queues, on_message=self._came)
        self.task_consumer.consume()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.connection.release()

    def call_soon(self, operation: Callable[..., None], *args: Any) -> None:
        """If the worker has its own loop, it does this before it waits for the next message."""
        operation(*args)

    def _came(self, message: Any) -> None:
        request = Request(message)
        signals.task_received.send(sender=self, request=request)
        if request.eta is None:
            self.came.append((message.payload, self.queues.hold(request).queue_name))
        else:
            self.later.append(request)
        message.ack()

    def send(self, queue: str, body: str) -> None:
        with self.connection.clone() as other:
            other.Producer().publish(body, routing_key=queue, serializer="json")

    def listen(self, for_s: float = 0.3) -> list[tuple[str, str | None]]:
        """What comes within so many seconds."""
        self.came.clear()
        end = time.monotonic() + for_s
        while time.monotonic() < end:
            with suppress(TimeoutError):
                self.connection.drain_events(timeout=0.05)
        return list(self.came)


def test_a_request_with_an_eta_is_held_as_its_message_was_received(broker: Broker) -> None:
    """It is held when nothing, or another message, is being delivered: queue and instant are those of its own."""
    with Worker(broker("redis"), Queue("slow"), Queue("others")) as worker:
        begin = time.monotonic()
        worker.send("others", "later")
        worker.listen()
        end = time.monotonic()
        (request,) = worker.later
        held = worker.queues.hold(request)
        unknown = worker.queues.hold(request)  # held again, after it went back: nothing is known of its message

    assert held.queue_name == "others"
    assert begin <= held.received <= end - 0.2
    assert unknown.queue_name is None
    assert unknown.received >= end


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_queue_that_is_aside_brings_nothing_and_keeps_what_it_has(broker: Broker, kind: str) -> None:
    """kombu/messaging.py, kombu/transport/virtual/base.py, amqp/channel.py: tags, callbacks, and consuming by a tag.

    A Redis broker is asked for messages of both queues when one is put aside: the message that comes by that call is
    delivered as any other, and those after it keep their order.
    """
    with Worker(broker(kind), Queue("slow"), Queue("others")) as worker:
        worker.listen(0.1)
        worker.queues.put_aside(frozenset({"slow"}))
        for number in range(3):
            worker.send("slow", f"slow {number}")
        late = worker.listen()
        worker.send("others", "others")
        others = worker.listen()
        known = worker.queues.names
        worker.queues.put_aside(frozenset())
        back = worker.listen(1.3)

    first = [("slow 0", "slow")] if kind == "redis" else []
    assert late == first
    assert others == [("others", "others")]
    assert known == {"slow", "others"}
    assert first + back == [(f"slow {number}", "slow") for number in range(3)]


def test_a_queue_that_was_deleted_while_it_was_aside_is_declared_again(broker: Broker) -> None:
    """RabbitMQ notifies only its consumers; to consume a queue that is not there ends the connection."""
    with Worker(broker("rabbitmq"), Queue("slow"), Queue("others")) as worker:
        worker.queues.put_aside(frozenset({"slow"}))
        worker.listen(0.1)
        with worker.connection.clone() as other:
            other.default_channel.queue_delete("slow")
        worker.queues.put_aside(frozenset())
        worker.listen(0.1)
        worker.send("slow", "again")

        assert worker.listen() == [("again", "slow")]


@pytest.mark.parametrize(
    ("queue", "can_spare"),
    [
        (Queue("third"), True),
        (Queue("third", max_priority=10), True),
        (Queue("third", auto_delete=True), False),
        (Queue("third", exclusive=True), False),
        (Queue("third", expires=60.0), False),
        (Queue("third", queue_arguments={"x-expires": 60_000}), False),
        (Queue("third", queue_arguments={"x-single-active-consumer": True}), False),
        (Queue("third", queue_arguments={"x-queue-type": "stream"}), False),
    ],
)
@pytest.mark.parametrize("kind", ["redis", "memory"])
def test_some_queues_cannot_be_spared(broker: Broker, kind: str, queue: Queue, can_spare: bool) -> None:
    with Worker("memory://" if kind == "memory" else broker(kind), queue) as worker:
        assert worker.queues.can_spare("third") == can_spare
        assert not worker.queues.can_spare("unknown")


@pytest.mark.parametrize(("kind", "can_spare"), [("redis", False), ("rabbitmq", True)])
def test_a_broadcast_cannot_be_spared_by_who_would_miss_it(broker: Broker, kind: str, can_spare: bool) -> None:
    queue = Queue("third", exchange=Exchange("all", type="fanout", auto_delete=True))
    with Worker(broker(kind), queue) as worker:
        assert worker.queues.can_spare("third") == can_spare


def aside(cluster: Cluster) -> list[list[str]]:
    """The queues that each worker has put aside, as it says itself."""
    return [said["queues_aside"] for said in cluster.stats().values()]


def inspect(cluster: Cluster, what: str) -> Any:
    """What the first worker answers to `inspect`."""
    return cluster.app.control.broadcast(what, reply=True, timeout=3, limit=1)[0]["w0@lab"]


def queues(cluster: Cluster) -> set[str]:
    """Those that the first worker consumes, as Celery says itself."""
    return {queue["name"] for queue in inspect(cluster, "active_queues")}


@pytest.mark.parametrize("kind", ["redis", *OTHER_BROKERS])
@pytest.mark.parametrize("pool", ["prefork", pytest.param("gevent", marks=pytest.mark.long)])
def test_a_backlog_in_one_queue_leaves_another_alone(
    broker: Broker, empty_redis: Server, figures: Figures, kind: str, pool: str
) -> None:
    """100 tasks at 1/m in one queue, a cap of 20 for each, then 100 without a limit in another: they start in seconds.

    With the cap and the prefetch count of 8 a worker took 29 messages, and no other: nothing started for 20 minutes.
    """
    with Cluster(broker(kind), f"{empty_redis.url}/1", "1/m", conf=FEW, loglevel="INFO") as cluster:
        cluster.send("limited", 100, queue="slow")
        cluster.start(1, pool=pool, options=BOTH)
        cluster.wait(lambda: aside(cluster) == [["slow"]], 10)
        held = cluster.stats()["w0"]["held"]
        begin = time.monotonic()
        cluster.send("free", 100, queue="others")
        cluster.wait_for(100, 10, task="free")
        took_s = time.monotonic() - begin
        cluster.wait_for(1, 5)
        consumed = queues(cluster)
        (reason,) = inspect(cluster, "rate_held")["limited"]["queues_aside"].values()
        limited = len(cluster.records("start", "limited"))
        log = cluster.log("w0")
    figures(f"{kind}, {pool}: {held} held at 1/m; 100 tasks of another queue in {took_s:.2f} s")

    assert 20 - 1 <= held <= 20 + 8 + 8  # one has started; RabbitMQ has sent a prefetch count more before it heard
    assert consumed == {"slow", "others"}
    assert "20 is the most (global_rate_max_held); consumed again at 15" in reason
    assert limited == 1
    assert log.count("queue slow is put aside whenever 20 of its tasks are held") == 1
    assert "has reached global_rate_max_held" not in log


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_to_and_fro_keeps_rate_order_and_every_task(
    broker: Broker, empty_redis: Server, figures: Figures, kind: str
) -> None:
    """150 tasks at 20/s with a cap of 60, which take 7.45 s: aside at 60, back at 45, seven times. Others beside it.

    The first slot is free at once. A late look at the queue would let what is held run out, and the order shows
    messages that went back to the wrong end.
    """
    conf = {"global_rate_max_held": 60}
    with Cluster(broker(kind), f"{empty_redis.url}/1", "20/s", conf=conf, loglevel="INFO") as cluster:
        cluster.start(1, options=BOTH)
        ids = cluster.send("limited", 150, queue="slow")
        seen = Counter[str]()
        while len(cluster.records("start", "limited")) < 150:
            cluster.send("free", 5, queue="others")
            seen.update(cluster.stats()["w0"]["queues_aside"])
            time.sleep(0.2)
        starts = cluster.records("release", "limited")
        cluster.wait(lambda: cluster.stats()["w0"]["held"] == 0, 3)
        ended = aside(cluster)
        prefetch = inspect(cluster, "stats")["prefetch_count"]
    took_s = starts[-1].instant - starts[0].instant
    figures(f"{kind}: 150 at 20/s with their queue aside now and then in {took_s:.2f} s")

    assert [record.task_id for record in starts] == ids
    assert 7.4 <= took_s <= 7.45 / 0.99 + 0.05
    assert seen["slow"] >= 5
    assert ended == [[]]
    assert prefetch == 8


@pytest.mark.parametrize("kind", ["redis", pytest.param("rabbitmq", marks=pytest.mark.slow)])
def test_queues_are_added_and_cancelled_while_one_is_aside(broker: Broker, empty_redis: Server, kind: str) -> None:
    """`add_consumer` of a third queue, and of the one that is aside, leave it aside; `cancel_consumer` takes it away.

    Each of the two lets RabbitMQ send another prefetch count and a step. Then nothing of it comes any more, limit or
    not, until it is added again. Each of 100 runs once.
    """
    with Cluster(broker(kind), f"{empty_redis.url}/1", "1/m", conf=FEW) as cluster:
        ids = cluster.send("limited", 100, queue="slow")
        cluster.start(1, options=BOTH)
        cluster.wait(lambda: aside(cluster) == [["slow"]], 10)
        control = cluster.app.control
        for name in ("third", "slow"):
            control.add_consumer(name, reply=True, timeout=3, limit=1)
        cluster.send("free", 10, queue="third")
        cluster.send("free", 10, queue="others")
        cluster.wait_for(20, 5, task="free")
        still = aside(cluster), cluster.stats()["w0"]["held"]
        control.cancel_consumer("slow", reply=True, timeout=3, limit=1)
        cluster.wait(lambda: aside(cluster) == [[]], 1)  # Celery replies before it cancels
        consumed = queues(cluster)
        cluster.set_rate("0")
        cluster.wait(lambda: cluster.stats()["w0"]["held"] == 0, 5)
        time.sleep(1)
        before = len(cluster.records("start", "limited"))
        control.add_consumer("slow", reply=True, timeout=3, limit=1)
        cluster.wait_for(100, 5)
        runs = Counter(record.task_id for record in cluster.records("start", "limited"))

    assert still[0] == [["slow"]]
    assert still[1] <= 20 + 3 * (8 + 8)
    assert consumed == {"third", "others"}
    assert before < 100
    assert runs == Counter(ids)


@pytest.mark.parametrize("kind", ["redis", pytest.param("rabbitmq", marks=pytest.mark.slow)])
@pytest.mark.parametrize("pool", ["prefork", pytest.param("gevent", marks=pytest.mark.slow)])
def test_a_lost_connection_and_the_end_of_a_worker_while_a_queue_is_aside(
    broker: Broker, empty_redis: Server, figures: Figures, kind: str, pool: str
) -> None:
    """After a reconnect it is consumed again, and put aside again. A worker that ends gives back what it holds.

    It ends within the few seconds that an idle worker takes: one that consumed the queue again while it ends, as what
    it holds is gone, would take message after message of 500. Each task runs once, by the next worker.
    """
    url = broker(kind)
    port = urlsplit(url).port or 0
    with Proxy(port) as proxy, Cluster(url, f"{empty_redis.url}/1", "1/m", conf=FEW, lifelines=True) as cluster:
        ids = cluster.send("limited", 500, queue="slow")
        cluster.start(1, pool=pool, options=BOTH, broker=url.replace(f":{port}", f":{proxy.port}"))
        cluster.wait(lambda: aside(cluster) == [["slow"]], 10)
        time.sleep(0.5)  # kombu loses a message of a Redis broker that is on its way when the connection breaks
        proxy.cut()
        cluster.wait_for(2, 20, "connected", "-")
        cluster.wait(lambda: aside(cluster) == [["slow"]], 15)
        cluster.send("free", 20, queue="others")
        cluster.wait_for(20, 10, task="free")
        begin = time.monotonic()
        assert cluster.stop("w0", 20) == 0
        ended_s = time.monotonic() - begin
        cluster.start(1, options=BOTH)
        cluster.set_rate("0")
        cluster.wait_for(500, 15)
        time.sleep(0.5)
        runs = Counter(record.task_id for record in cluster.records("start", "limited"))
    figures(f"{kind}, {pool}: a worker with a queue aside ended in {ended_s:.1f} s")

    assert runs == Counter(ids)


@KNOWS_QUORUM_QUEUES
@pytest.mark.parametrize("most", [100, 0])
def test_a_queue_that_is_deleted_with_its_last_consumer_outlives_lending(
    rabbitmq_server: RabbitMQ, empty_redis: Server, figures: Figures, most: int
) -> None:
    """60 tasks at 1/m, then 20 without a limit, in a queue with `auto_delete`; a quorum queue beside it.

    With that RabbitMQ counts for each consumer, as kombu 5.7 asks it to from RabbitMQ 4 on: to lend slots the worker
    restarts its consumers. The queue and all messages in it were gone, and the worker ended with NotFound (404).
    With 0 nothing is lent: the worker takes its own 8 messages, and another one that it acknowledges.
    """
    name = f"leaving{most}"
    rabbitmq_server.purge()
    arguments = {"x-queue-type": "quorum"}
    queues = {
        name: {"exchange": name, "routing_key": name, "auto_delete": True},  # its exchange as well: its own name
        "quorum": {"exchange": "quorum", "routing_key": "quorum", "queue_arguments": arguments},
    }
    conf = {"task_queues": queues, "task_default_queue": name, "global_rate_max_held": most}
    with Cluster(rabbitmq_server.url, f"{empty_redis.url}/1", "1/m", conf=conf) as cluster:
        cluster.start(1)
        cluster.send("limited", 60)
        cluster.send("free", 20)
        if most:
            cluster.wait_for(20, 10, task="free")
        cluster.wait_for(1, 5)
        if not most:
            cluster.wait(lambda: cluster.stats()["w0"]["held"] == 8, 10)
        with Connection(rabbitmq_server.url) as connection, connection.channel() as channel:
            ready, consumers = channel.queue_declare(name, passive=True)[1:]
        held = cluster.stats()["w0"]["held"]
    figures(f"auto_delete, max_held {most}: {held} held, {ready} left in the queue, {consumers} consumer")

    assert consumers == 1
    assert held + ready == (59 if most else 79)


@KNOWS_QUORUM_QUEUES
def test_lending_leaves_a_single_active_consumer_where_it_is(rabbitmq_server: RabbitMQ, empty_redis: Server) -> None:
    """30 tasks at 1/m in such a queue, two workers, a quorum queue with as many: the first one keeps the former.

    It holds what its prefetch count lets it. When its consumer was restarted, the other worker became the active one,
    took messages before what this one holds was done, and the order was lost.
    """
    rabbitmq_server.purge()
    queues = {
        "third": {"exchange": "third", "queue_arguments": {"x-single-active-consumer": True}},
        "quorum": {"exchange": "quorum", "queue_arguments": {"x-queue-type": "quorum"}},
    }
    for name, queue in queues.items():
        queue["routing_key"] = name
    with Cluster(rabbitmq_server.url, f"{empty_redis.url}/1", "1/m", conf={"task_queues": queues}) as cluster:
        cluster.start(2)
        cluster.send("limited", 30, queue="third")
        cluster.send("limited", 30, queue="quorum")
        cluster.wait(lambda: sum(said["held"] for said in cluster.stats().values()) >= 30 + 7, 10)
        time.sleep(0.5)
        with Connection(rabbitmq_server.url) as connection, connection.channel() as channel:
            left = channel.queue_declare("third", passive=True, arguments={"x-single-active-consumer": True})[1]

    assert 30 - left <= 8 + 1


def run(
    broker: str, limiter: str | None, rate: str, tasks: int, pool: str, queues: str = "slow,others"
) -> tuple[float, float, int]:
    """Backlogs in two queues and two workers, until the one without a limit is done, or for twelve seconds.

    The workers may consume only the other one. The first one is there all the same: kombu reads a folder of files for
    each message.

    Returns:
        Starts a second of the tasks without a limit, those of the others, and how many the former were.
    """
    with Cluster(broker, limiter, rate, extension=limiter is not None) as cluster:
        cluster.send("limited", tasks, queue="slow")
        cluster.send("free", tasks, queue="others")
        cluster.start(2, pool=pool, options=("-Q", queues))
        end = time.monotonic() + 12
        cluster.wait(lambda: len(cluster.instants("start", "free")) == tasks or time.monotonic() > end, 15)
        starts, slow = cluster.instants("start", "free"), cluster.instants("start")
    return per_second(starts), per_second(slow), len(starts)


def per_second(starts: list[float]) -> float:
    """From the first to the last."""
    return (len(starts) - 1) / (starts[-1] - starts[0]) if len(starts) > 1 else 0.0


@pytest.mark.long
@pytest.mark.parametrize("rate", ["1/m", "5/s"])
@pytest.mark.parametrize(
    ("kind", "pool", "tasks", "least"),
    [
        ("redis", "prefork", 5000, 0.95),
        ("redis", "gevent", 5000, 0.45),  # one loop does all: it falls short, most where queues go back and forth
        ("rabbitmq", "prefork", 5000, 0.8),  # it searches past older messages that are not acknowledged
        ("filesystem", "prefork", 1500, 0.9),
    ],
)
def test_others_do_as_they_would_alone(
    broker: Broker,
    empty_redis: Server,
    figures: Figures,
    kind: str,
    pool: str,
    tasks: int,
    rate: str,
    least: float,
) -> None:
    """5000 tasks with a limit in one queue, 5000 without one in another, against these alone: three pairs.

    The limited ones have 0.99 of their rate (0.9 with greenlets, and on files), from the first start to the last.
    Stock Celery, beside it, starts what it takes from both queues in turn until its window is full, and then no more.
    """
    limiter = f"{empty_redis.url}/1"
    pairs, limited = [], []
    for _ in range(3):
        alone, _, _ = run(broker(kind), limiter, rate, tasks, pool, "others")
        beside, slow, _ = run(broker(kind), limiter, rate, tasks, pool)
        pairs.append((alone, beside))
        limited.append(slow)
    _, _, stock = run(broker(kind), None, rate, tasks, pool)
    share = median(beside / alone for alone, beside in pairs)
    measured = ", ".join(f"{beside:.0f} of {alone:.0f}" for alone, beside in pairs)
    figures(
        f"{kind}, {pool}, beside {tasks} at {rate}: {measured} starts a second, median {share:.3f} of alone; limited "
        f"{median(limited):.2f}/s; stock starts {stock} of {tasks} in 12 s"
    )

    assert share >= least
    assert stock < tasks / 10
    if rate == "5/s":
        assert 5 * (0.99 if pool == "prefork" and kind != "filesystem" else 0.9) <= median(limited) <= 5.05
