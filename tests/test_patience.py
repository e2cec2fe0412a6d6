"""Held messages and a broker that waits for them no longer than it was told to."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.cluster import Cluster

from .conftest import Figures, Server

VISIBILITY_S = 5


@contextmanager
def sweeping(cluster: Cluster, every_s: float = 2.0) -> Iterator[None]:
    """Let messages that were taken too long ago be delivered again, as a worker does every hundred seconds."""
    done = threading.Event()

    def sweep() -> None:
        with cluster.app.connection_for_read() as connection, connection.channel() as channel:
            while not done.wait(every_s):
                channel.qos.restore_visible(interval=1)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        yield
    finally:
        done.set()
        sweeper.join()


@pytest.mark.slow
def test_a_message_that_is_held_longer_than_the_visibility_timeout_runs_once(
    empty_redis: Server, figures: Figures
) -> None:
    """6 tasks at 12/m with a visibility timeout of 5 s, which is looked after every 2 s: 6 executions, in 25 to 27 s.

    Beside it, at the same time, stock workers: each has the limit for itself, so their last task waits for 15 s at the
    most, and is delivered again meanwhile.
    """
    conf = {"broker_transport_options": {"visibility_timeout": VISIBILITY_S}}
    with (
        Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", "12/m", conf=conf) as here,
        Cluster(f"{empty_redis.url}/2", None, "12/m", extension=False, conf=conf) as stock,
        sweeping(here),
        sweeping(stock),
    ):
        for cluster in (here, stock):
            cluster.send("limited", 6)
            cluster.start(2)
        here.wait_for(6, 40)
        time.sleep(VISIBILITY_S + 2)
        starts = here.instants("start")
        runs = Counter(record.task_id for record in here.records("start", "limited"))
        stock_runs = Counter(record.task_id for record in stock.records("start", "limited"))
    figures(f"6 tasks, held for up to 25 s: {sum(runs.values())} executions here, {sum(stock_runs.values())} in stock")

    assert sorted(runs.values()) == [1] * 6
    assert 24 <= starts[-1] - starts[0] <= 27
    assert sum(stock_runs.values()) > 6
