"""Tasks from Amazon SQS (moto's server) run once though they are held for longer than their visibility timeout."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("moto", reason="make packages installs it")
pytest.importorskip("pycurl", reason="make packages installs it")
import boto3
from kombu import Connection

from celery_global_rate.broker.sqs import VisibilityTimeout
from testbed.cluster import Cluster
from testbed.meanwhile import wait
from testbed.server import free_port

from ..conftest import Figures, Server
from .load import judge

PACKAGES = ("boto3", "pycurl", "moto")
VISIBILITY_S = 3
OPTIONS = {"is_secure": False, "region": "us-east-1", "wait_time_seconds": 1, "polling_interval": 0.1}


@pytest.fixture
def sqs() -> Iterator[int]:
    """The port of a server that speaks SQS."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=1):
            return True
        return False

    try:
        wait(answers, 20)
        yield port
    finally:
        process.kill()
        process.wait()


def queue_on(port: int) -> tuple[Any, str]:
    """A client, and the URL of a queue with a short timeout."""
    client = boto3.client(
        "sqs",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    attributes = {"VisibilityTimeout": str(VISIBILITY_S)}
    return client, client.create_queue(QueueName="celery", Attributes=attributes)["QueueUrl"]


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_a_message_that_is_held_longer_than_the_visibility_timeout_runs_once(
    empty_redis: Server, sqs: int, figures: Figures, pool: str
) -> None:
    """16 tasks, half of which fail, at 2/s with a visibility timeout of 3 s: the last is held for seven seconds.

    The queue has been there before the workers, whose own setting is kombu's half an hour. kombu's loop waits for each
    reply of SQS, and misses a slot, one of eleven, where that takes longer than D: two may be missed.
    """
    client, url = queue_on(sqs)
    conf = {"broker_transport_options": OPTIONS, "worker_enable_remote_control": False}
    with Cluster(f"sqs://key:secret@127.0.0.1:{sqs}", f"{empty_redis.url}/1", "2/s", conf=conf) as cluster:
        cluster.start(2, pool=pool)
        for _ in range(8):
            cluster.send("limited", 1)
            cluster.send("limited", 1, (0, "boom"))
        cluster.wait_for(16, 30)
        begin, end = (cluster.instants("start")[place] for place in (4, -2))
        figures(judge(cluster, 2, begin, end, least=0.8))
        time.sleep(VISIBILITY_S + 2)
        runs = Counter(record.task_id for record in cluster.records("start", "limited"))
        left = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]

    assert Counter(runs.values()) == {1: 16}
    assert (left["ApproximateNumberOfMessages"], left["ApproximateNumberOfMessagesNotVisible"]) == ("0", "0")


def test_a_refusal_is_logged_once(sqs: int, caplog: pytest.LogCaptureFixture) -> None:
    """The timeout is that of the queue; a message that is gone cannot be hidden any longer."""
    client, url = queue_on(sqs)
    with Connection(f"sqs://key:secret@127.0.0.1:{sqs}", transport_options=OPTIONS) as connection:
        queue = connection.SimpleQueue("celery")
        queue.put({})
        message = queue.get(timeout=5)
        held: list[Any] = [SimpleNamespace(message=message, received=time.monotonic())]
        timeout = VisibilityTimeout(connection.default_channel)
        due_s, again_s = timeout.due(held[0]) - time.monotonic(), timeout.keep_up(0.0, held)
        said_before = caplog.text
        client.delete_queue(QueueUrl=url)
        timeout.keep_up(0.0, held)
        timeout.keep_up(0.0, held)

    assert due_s == pytest.approx(VISIBILITY_S / 3, abs=0.1)
    assert again_s == VISIBILITY_S / 3
    assert said_before == ""
    assert caplog.text.count("SQS does not hide held messages for longer") == 1
