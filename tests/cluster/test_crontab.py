"""Real workers with a bucket that a crontab refills: 20 tokens each time, and 40 at the most.

A new bucket is full. Starts are counted by the clock of Redis, which is this machine's: a token is used before the next
refill, so the counts are exact.
"""

from __future__ import annotations

import json
import time

import pytest

from testbed.cluster import Cluster

from ..conftest import Figures, Server
from .operator import cluster_on, global_rate

INCLUDE = ("-I", "tests.apps.refilled")
APP = "tests.apps.refilled"


def refilled(server: Server, minute: str) -> Cluster:
    """A cluster with such a bucket for `free`; each worker may hold all that is sent."""
    cluster = cluster_on(server, None, conf={"global_rate_max_held": 5000}, loglevel="INFO")
    cluster.setup["minute"] = minute
    cluster.environment["GLOBAL_RATE_SETUP"] = json.dumps(cluster.setup)
    return cluster


def starts(cluster: Cluster) -> list[float]:
    """When tasks have started, in seconds of the epoch."""
    return [instant + time.time() - time.monotonic() for instant in cluster.instants("start", "free")]


def order(cluster: Cluster, rate: str) -> list[dict[str, str]]:
    """`control rate_limit`: what each worker replies."""
    replies = cluster.app.control.rate_limit("api", rate, reply=True, timeout=5, limit=len(cluster.workers))
    return [answer for reply in replies for answer in reply.values()]


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.long)])
def test_a_full_bucket_starts_its_maximum_at_once_and_nothing_more(
    empty_redis: Server, figures: Figures, pool: str
) -> None:
    """The next refill is half an hour away. Operators see it, and set the amount but no rate."""
    minute = str((int(time.time() // 60) + 30) % 60)
    with refilled(empty_redis, minute) as cluster:
        cluster.send("free", 120)
        names = cluster.start(2, pool=pool, options=INCLUDE)
        cluster.wait_for(40, 10, task="free")
        time.sleep(2)
        found, workers = starts(cluster), cluster.shares("free")
        held = sum(worker["held"] for worker in cluster.stats().values())
        refused, replies = order(cluster, "10/s"), order(cluster, "30/refill")
        shown = global_rate(cluster, "show", "api", app=APP)
        logs = [cluster.log(name) for name in names]
    figures(f"{pool}: {len(found)} starts of 40 tokens in {found[-1] - found[0]:.3f} s, by worker {workers}")

    assert len(found) == 40
    assert held == 80
    assert all("use N/refill" in reply["error"] for reply in refused)
    terms = f"refill at {minute} * * * *, at most 40"
    assert all(reply["ok"].endswith(f"30/{terms}, before 20/{terms}") for reply in replies)
    assert (len(refused), len(replies)) == (2, 2)
    assert f"30/{terms}" in shown
    assert "0 of 40 left, 30 more in " in shown
    assert all(f"api at 20/{terms} (tasks free)" in log for log in logs)
    assert not any(word in log for log in logs for word in ("Traceback", "unexpected error"))


@pytest.mark.long
def test_tokens_come_with_the_minute_as_many_as_an_operator_has_set(empty_redis: Server, figures: Figures) -> None:
    """A minute without an override would bring 20; one of 30 is set before it. Two workers use all within a second."""
    with refilled(empty_redis, "*") as cluster:
        cluster.start(2, options=INCLUDE)
        left_s = 60 - time.time() % 60
        if left_s < 10:
            time.sleep(left_s)
        cluster.send("free", 200)
        cluster.wait_for(40, 10, task="free")
        edge = starts(cluster)[0] // 60 * 60 + 60
        assert all("ok" in reply for reply in order(cluster, "30/refill"))
        time.sleep(max(0.0, edge + 3 - time.time()))
        found, workers = starts(cluster), cluster.shares("free")
        logs = [cluster.log(name) for name in cluster.workers]
    before, after = ([it for it in found if (it < edge) == is_before] for is_before in (True, False))
    figures(
        f"{len(before)} starts and {len(after)} after the refill, up to {after[-1] - edge:.3f} s; by worker {workers}"
    )

    assert (len(before), len(after)) == (40, 30)
    assert after[-1] <= edge + 1
    assert not any(word in log for log in logs for word in ("Traceback", "unexpected error"))
