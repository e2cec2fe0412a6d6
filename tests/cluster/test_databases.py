"""Two databases of one Redis, and one application: what is set in one leaves the other alone."""

from __future__ import annotations

import time

from testbed.cluster import Cluster
from testbed.server import Redis
from testbed.windows import since

from ..conftest import Figures
from .operator import SLACK_S, control, global_rate


def test_what_is_set_in_one_database_leaves_the_other_alone(own_redis: Redis, figures: Figures) -> None:
    """Production in database 0 at 20/s, staging in 1, and all commands there that take the rate away.

    Redis has one set of channels for all its databases. Production goes on at 20/s, from start to start, within the
    noise of a start's instant, and keeps no override; staging obeys.
    """
    with (
        Cluster(f"{own_redis.url}/0", rate="20/s") as production,
        Cluster(f"{own_redis.url}/1", rate="20/s") as staging,
    ):
        production.send("limited", 400)
        production.start(1, pool="solo")
        staging.start(1, pool="solo")
        production.wait_for(5, 10)
        begin = time.monotonic()
        global_rate(staging, "set", "limited", "1/m")
        global_rate(staging, "pause", "limited")
        global_rate(staging, "resume", "limited")
        replies = control(staging, "1/h")
        time.sleep(2)
        end = time.monotonic()
        starts = since(production.instants("start"), begin, end)
        staging.send("limited", 3)
        staging.wait_for(1, 5)
        time.sleep(1)
        obeyed = len(staging.instants("start"))
    kept = [own_redis.client(database).exists("{global-rate:v1:lab}:records") for database in (0, 1)]
    rate = (len(starts) - 1) / (starts[-1] - starts[0]) if len(starts) > 1 else 0.0
    figures(f"overrides in another database: {len(starts)} starts in {end - begin:.1f} s, {rate:.2f}/s of 20/s")

    assert "ok" in replies[0]
    assert len(starts) >= 20 * (end - begin - 2 * SLACK_S) - 2
    assert 19.8 <= rate <= 20.2
    assert kept == [0, 1]
    assert obeyed == 1
