"""Tasks of one name with different priorities, held in one worker."""

from __future__ import annotations

import pytest

from testbed.cluster import Cluster

from ..conftest import Figures, Server

ORDINARY, URGENT = 60, 10


def of_redis(empty_redis: Server, rabbitmq: str) -> tuple[str, int, int]:
    """Broker, and the priorities of ordinary and urgent tasks: on Redis the lowest number is first."""
    return f"{empty_redis.url}/0", 6, 0


def of_rabbitmq(empty_redis: Server, rabbitmq: str) -> tuple[str, int, int]:
    """On RabbitMQ the highest number is first."""
    return rabbitmq, 1, 9


@pytest.mark.parametrize("broker", [of_redis, of_rabbitmq], ids=["redis", "rabbitmq"])
def test_urgent_tasks_start_before_the_ordinary_ones_that_are_held(
    empty_redis: Server, rabbitmq: str, figures: Figures, broker: object
) -> None:
    """60 ordinary tasks are held at 5/s when ten urgent ones come: the next start is theirs, and all ten of them.

    The first one starts within a second: the slot in hand, 0.2 s, may be an ordinary task's. Two such tasks, one in
    hand and one on its way, may start before. Held in the order of arrival, an urgent task waited 12 s.
    """
    url, ordinary, urgent = broker(empty_redis, rabbitmq)  # type: ignore[operator]
    with Cluster(url, f"{empty_redis.url}/1", "5/s", conf={"task_queue_max_priority": 10}) as cluster:
        cluster.send("limited", ORDINARY, priority=ordinary)
        cluster.start(1)
        cluster.wait_for(5, 20)
        ids = cluster.send("limited", URGENT, priority=urgent)
        sent = [record.instant for record in cluster.records("start", "limited")]
        cluster.wait_for(len(sent) + URGENT + 4, 20)
        later = cluster.records("start", "limited")[len(sent) :]
    first_s = min(record.instant for record in later if record.task_id in ids) - sent[-1]
    places = [place for place, record in enumerate(later) if record.task_id in ids]
    figures(f"the first urgent task after {first_s:.2f} s; places of the ten: {places}")

    assert first_s <= 1.0
    assert len(places) == URGENT
    assert places[-1] - places[0] == URGENT - 1
    assert places[0] <= 2
