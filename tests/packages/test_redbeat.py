"""Entries of a RedBeat schedule fire, and the tasks that they send are limited."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

pytest.importorskip("redbeat", reason="make packages installs it")

from celery.schedules import schedule
from redbeat import RedBeatSchedulerEntry

from testbed.cluster import Cluster

from ..conftest import Figures, Server
from .beat import beating
from .load import judge

PACKAGES = ("celery-redbeat",)


def test_entries_of_a_schedule_fire_at_a_limited_rate(empty_redis: Server, figures: Figures) -> None:
    """Six entries that are due each second, in the Redis of the limits: they send more than the 3/s that start.

    RedBeat keeps whole seconds, so an entry fires every one or two.
    """
    conf = {"redbeat_redis_url": f"{empty_redis.url}/1", "beat_max_loop_interval": 1}
    with Cluster(f"{empty_redis.url}/0", f"{empty_redis.url}/1", "3/s", conf=conf, lifelines=True) as cluster:
        cluster.start(2)
        each_second = schedule(timedelta(seconds=1))
        for number in range(6):
            args = [0, "boom"] if number % 2 else []
            RedBeatSchedulerEntry(f"entry {number}", "limited", each_second, args=args, app=cluster.app).save()
        with beating(cluster, "redbeat.RedBeatScheduler"):
            cluster.wait_for(18, 30)
        figures(judge(cluster, 3, *(cluster.instants("start")[place] for place in (4, 17))))
        received = len(cluster.records("received", "limited"))
        entries = [RedBeatSchedulerEntry.from_key(f"redbeat:entry {number}", app=cluster.app) for number in range(6)]

    assert received > 18
    assert Counter(entry.total_run_count > 1 for entry in entries) == {True: 6}
