"""A load of limited tasks, every second of which fails, and whether their rate was kept."""

from __future__ import annotations

import json
from typing import Any

from testbed.cluster import Cluster
from testbed.windows import excess, used

from ..conftest import Figures, Server

#: D of 100/s and slower, up to 4/s, and what R adds on a busy machine.
SLACK_S = 0.025 + 0.015
#: Of the slots. On an idle machine all are used; on a busy one, a worker of 20/s is late for some by more than D.
USED = 0.9


def send_both(cluster: Cluster, pairs: int) -> list[str]:
    """Send tasks of which one succeeds and one fails, by turns; returns their ids."""
    return [cluster.send("limited", 1, args)[0] for _ in range(pairs) for args in ((), (0, "boom"))]


def judge(cluster: Cluster, per_s: float, begin: float, end: float, least: float = USED) -> str:
    """Whether a rate was kept, in both directions, between two instants with a backlog; returns the figures.

    Never more: no window of releases holds more than ``1 + (w + D + R) / T``. Never less: `least` of the slots used.
    """
    releases = [instant for instant in cluster.instants("release") if begin <= instant]
    share, worst = used(releases, 1 / per_s, begin, end), excess(releases, 1 / per_s, 1, SLACK_S)
    assert worst <= 0, f"{worst:.2f} starts too many in a window"
    assert least <= share <= 1 + SLACK_S, f"{share:.3f} of the slots used"
    return f"{per_s:g}/s: {share:.3f} of the slots used, worst window {worst:+.2f}"


def observed(server: Server, figures: Figures, package: str, count: int, **options: Any) -> list[dict[str, Any]]:
    """What a package has written down of 30 tasks that succeed and 30 that fail, at 20/s in two workers.

    Args:
        server: broker and limiter.
        figures: takes the rate.
        package: the application among `apps` that writes a line of JSON for each thing it hears of, and its file.
        count: of lines to wait for.
        options: of the workers.
    """
    with Cluster(f"{server.url}/0", f"{server.url}/1", "20/s") as cluster:
        send_both(cluster, 30)
        cluster.start(2, options=("-I", f"tests.packages.apps.{package}"), **options)
        cluster.wait_for(60, 20)
        figures(judge(cluster, 20, *(cluster.instants("start")[place] for place in (4, -2))))
        file = cluster.directory / package

        def lines() -> list[dict[str, Any]]:
            return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

        cluster.wait(lambda: len(lines()) >= count, 10, f"{count} lines of {package}")
        return lines()
