"""Real workers that find the limits' Redis in Celery's own settings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.cluster import Cluster
from testbed.server import Redis

from ..apps.credentials import SECRET
from ..conftest import KNOWS_PROVIDERS, Figures, locked_redis

PROVIDER, LATE = ("tests.apps.credentials.Provider", "tests.apps.credentials.LateProvider")


@pytest.fixture(scope="module")
def locked() -> Iterator[Redis]:
    with locked_redis(SECRET) as server:
        yield server


def test_a_worker_on_a_broker_as_celery_prints_it(own_redis: Redis) -> None:
    """With a slash more and in capitals."""
    with Cluster(own_redis.url.replace("redis", "REDIS") + "//", rate="50/s") as cluster:
        cluster.start(1, pool="solo")
        cluster.send("limited", 5)
        cluster.wait_for(5, 10)
        known = cluster.stats()["w0"]

    assert (known["redis"], known["database"], known["outage"]) == (own_redis.url, 0, None)


@KNOWS_PROVIDERS
def test_a_worker_whose_broker_has_a_credential_provider(locked: Redis) -> None:
    """Limits are kept by the same credentials. `show` reaches them too."""
    locked.client().flushall()
    with Cluster(f"{locked.url}/0?credential_provider={PROVIDER}", rate="50/s", loglevel="INFO") as cluster:
        cluster.start(1, pool="solo")
        cluster.send("limited", 5)
        cluster.wait_for(5, 10)
        log = cluster.log("w0")

    assert "limits are cluster-wide" in log
    assert "Traceback" not in log


def test_a_provider_that_fails_at_the_start_is_an_outage(locked: Redis, own_redis: Redis, figures: Figures) -> None:
    """It fails three times: for overrides, and at the first attempt of both connections. The next attempts succeed.

    Lost connections are opened again after at most 0.375 s each, so it is over within a second, in one line.
    """
    conf = {"global_rate_url": f"{locked.url}/1?credential_provider={LATE}"}
    with Cluster(f"{own_redis.url}/0", rate="50/s", conf=conf, loglevel="INFO") as cluster:
        cluster.environment["GLOBAL_RATE_FAILURES"] = "3"
        cluster.start(1, pool="solo")
        cluster.send("limited", 5)
        cluster.wait_for(5, 10)
        lines = [line for line in cluster.log("w0").splitlines() if "global-rate: " in line]
        log = cluster.log("w0")
    figures(f"a credential provider that fails thrice: {[line.partition('global-rate: ')[2] for line in lines]}")

    assert sum("RuntimeError" in line for line in lines) == 1
    assert "Traceback" not in log
    assert "s3cret" not in log
