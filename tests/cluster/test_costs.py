"""Real workers whose tasks cost several units of the limits that they share."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from testbed.cluster import Cluster

from ..conftest import Figures, Server

INCLUDE = ("-I", "tests.apps.costly")
TOKENS: dict[str, Any] = {"rate": "100/s", "tasks": ["ask"], "cost": "tokens"}
#: None of them is a whole number >= 0 that 100/s could give.
BAD: list[Any] = ["many", -1, 1.5, True, [5], {"a": 1}, "", 10**12, 3.0, False]
#: R and J beside D, in seconds.
SLACK_S = 0.025 + 0.015


def paid(
    broker: str, limiter: str, buckets: Mapping[str, Any], rate: str | None = None, backend: str | None = None
) -> Cluster:
    """A cluster with named buckets; each worker may hold all that is sent."""
    conf: dict[str, Any] = {"global_rate_buckets": buckets, "global_rate_max_held": 5000}
    if backend:
        conf["result_backend"] = backend
    cluster = Cluster(broker, limiter, rate, conf=conf, loglevel="INFO")
    cluster.app.set_default()
    return cluster


class Events:
    """What workers send of their tasks, by the ids of these."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._is_over = False
        self.of: dict[str, list[str]] = {}
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> Events:
        self._thread.start()
        time.sleep(0.5)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over = True
        self._thread.join(10)

    def _receive(self) -> None:
        with self._cluster.app.connection_for_read() as connection:
            receiver = self._cluster.app.events.Receiver(connection, handlers={"*": self._note})
            while not self._is_over:
                with contextlib.suppress(TimeoutError):
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)

    def _note(self, event: dict[str, Any]) -> None:
        if "uuid" in event:
            self.of.setdefault(event["uuid"], []).append(event["type"])


@pytest.mark.parametrize(
    ("pool", "broker"),
    [
        ("prefork", "redis"),
        ("threads", "redis"),
        pytest.param("gevent", "redis", marks=pytest.mark.long),
        pytest.param("solo", "redis", marks=pytest.mark.long),
        pytest.param("prefork", "rabbitmq", marks=pytest.mark.long),
        pytest.param("threads", "rabbitmq", marks=pytest.mark.long),
        pytest.param("gevent", "rabbitmq", marks=pytest.mark.long),
    ],
)
def test_a_cost_that_cannot_be_meant_fails_its_task_and_nothing_else(
    request: pytest.FixtureRequest, empty_redis: Server, figures: Figures, pool: str, broker: str
) -> None:
    """Every third task is such a one. The others are 20 times 4 units: 0.8 s at 100/s.

    Each of those fails once: with a result, a line in the log, the events and the signal that Celery has for failed
    tasks, and its message is gone.
    """
    if pool == "gevent":
        pytest.importorskip("gevent")
    url = f"{empty_redis.url}/0" if broker == "redis" else request.getfixturevalue("rabbitmq")
    with paid(url, f"{empty_redis.url}/1", {"llm": TOKENS}, backend=f"{empty_redis.url}/0") as cluster:
        (name,) = cluster.start(1, pool=pool, options=(*INCLUDE, "-E"))
        ask = cluster.app.signature("ask", app=cluster.app)
        with Events(cluster) as events:
            begin = time.monotonic()
            wrong, right = [], []
            for value in BAD:
                wrong.append(ask.clone((value,)).apply_async())
                right += [ask.clone((tokens,)).apply_async() for tokens in (5, 3)]
            values = [result.get(timeout=20) for result in right]
            took_s = time.monotonic() - begin
            errors = [result.get(timeout=20, propagate=False) for result in wrong]
            cluster.wait(lambda: len(cluster.records("failed")) >= len(BAD), 5, "signals of failures")
            cluster.wait(
                lambda: all("task-rejected" in events.of.get(it.id, ()) for it in wrong), 5, f"events: {events.of}"
            )
        log, stats = cluster.log(name), cluster.stats()[name]
        started = {record.task_id for record in cluster.records("start", "ask")}
        failed = [(record.task, record.task_id) for record in cluster.records("failed")]
        code = cluster.stop(name)
        with cluster.app.connection_for_read() as connection, connection.channel() as channel:
            left = channel.queue_declare("celery", durable=True, auto_delete=False).message_count
    figures(f"{pool}, {broker}: 20 tasks of 5 and 3 units among 10 bad ones, in {took_s:.2f} s")

    assert values == [5, 3] * len(BAD)
    assert 20 * 4 / 100 - 0.1 <= took_s <= 2.5
    for value, error, result in zip(BAD, errors, wrong):
        assert type(error) is ValueError
        assert f"task ask: its cost in bucket llm, tokens = {value!r:.80}, is " in str(error)
        assert str(error).endswith(": send a number of units, such as 1")
        assert log.count(f"global-rate: {error}; {result.id} fails") == 1
        assert events.of[result.id].count("task-failed") == events.of[result.id].count("task-rejected") == 1
    assert sorted(failed) == sorted(("ValueError", result.id) for result in wrong)
    assert started == {result.id for result in right}
    assert (stats["held"], left, code) == (0, 0, 0)
    assert "Traceback" not in log
    assert "unexpected error" not in log
