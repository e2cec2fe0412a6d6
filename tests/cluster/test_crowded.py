"""Limited tasks beside a backlog of tasks without a limit that keeps all processes busy."""

from __future__ import annotations

import random
import time

import pytest

from celery_global_rate.limits.limit import Limit
from testbed.cluster import Cluster
from testbed.windows import excess, since

from ..conftest import Figures, Server

RUN_TIME_S, PROCESSES = 0.1, 8
RATE = Limit.parse("20/s")
#: The watch begins this long after the first start, and lasts so long, in seconds.
SETTLED_S, WATCHED_S = 3.0, 8.0
#: All that comes in that time may be held: what the cap does to tasks in the same queue is another question.
MOST_HELD = 2000


def start_rates(redis: Server, pool: str, queues: int, limited: bool) -> tuple[float, float, float]:
    """Starts a second of the tasks `limited` and `free`, and by how many releases the worst window is too full."""
    assert RATE is not None
    for database in (0, 1):
        redis.client(database).flushdb()
    tasks = ["limited", "free"] * int((SETTLED_S + WATCHED_S + 2) * PROCESSES / RUN_TIME_S)
    if queues == 1:
        random.Random(1).shuffle(tasks)
    conf = {"global_rate_max_held": MOST_HELD}
    with Cluster(f"{redis.url}/0", f"{redis.url}/1", "20/s", extension=limited, conf=conf) as cluster:
        if not limited:
            cluster.setup["rate"] = None
        with cluster.app.producer_or_acquire() as producer:
            for task in tasks:
                queue = "other" if queues == 2 and task == "limited" else "celery"
                cluster.app.send_task(task, (RUN_TIME_S,), producer=producer, queue=queue)
        cluster.start(1, pool=pool, concurrency=PROCESSES, options=("-Q", "celery,other"))
        cluster.wait_for(1, 20, task="free")
        begin = time.monotonic() + SETTLED_S
        time.sleep(SETTLED_S + WATCHED_S)
        watched = {
            task: since(cluster.instants("start", task), begin, begin + WATCHED_S) for task in ("limited", "free")
        }
        worst = 0.0
        if limited:
            (stats,) = cluster.stats().values()
            slack_s = RATE.grace_s + (stats["widest_clock_uncertainty_ms"] or 0) / 1000
            worst = excess(cluster.instants("release"), RATE.interval_s, 1, slack_s)
    return len(watched["limited"]) / WATCHED_S, len(watched["free"]) / WATCHED_S, worst


@pytest.mark.long
@pytest.mark.parametrize("queues", [1, 2])
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_limited_tasks_have_their_turn(empty_redis: Server, figures: Figures, pool: str, queues: int) -> None:
    """100 ms each, 8 processes, twice as many tasks as can run, in one shuffled queue and in two.

    From the third second on, 0.95 of 20/s, or of what the same tasks have without a limit; and the pool is as busy:
    0.95 of the starts that there are without a limit. Not more than 1.02 of the rate: a start or two at the edges.
    """
    without, free, _ = start_rates(empty_redis, pool, queues, limited=False)
    limited, others, worst = start_rates(empty_redis, pool, queues, limited=True)
    figures(
        f"{pool}, {queues} queue(s): {limited:.1f} limited and {others:.1f} others a second; without a limit "
        f"{without:.1f} and {free:.1f}"
    )

    assert 0.95 * min(20, without) <= limited <= 1.02 * 20
    assert limited + others >= 0.95 * (without + free)
    assert worst <= 0
