"""Real workers whose tasks call an API that answers 429: the bucket backs off, everywhere, with no change in a task."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from testbed.cluster import Cluster
from tests.apps.answered import KINDS, SILENT

from ..conftest import Figures, Server
from .operator import IN_FORCE_S, cluster_on

INCLUDE = ("-I", "tests.apps.answered")
RATE, PAUSE_S = 50, 1
API: dict[str, Any] = {"rate": f"{RATE}/s", "tasks": ["free", "answers.*"], "backoff": True}


class Api:
    """An HTTP server that asks for a pause, as its path says: ``/429/2`` for 2 seconds.

    Attributes:
        url: of it.
        requests: when each request came, monotonic seconds, and what was answered.
    """

    def __init__(self, answer: Callable[[float, str], tuple[int, Mapping[str, str]]]) -> None:
        self.requests: list[tuple[float, int]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                now = time.monotonic()
                status, headers = answer(now, self.path)
                api.requests.append((now, status))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Api:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def as_asked(now: float, path: str) -> tuple[int, Mapping[str, str]]:
    _, status, seconds = path.split("/")
    return int(status), {"Retry-After": seconds}


@pytest.fixture
def api() -> Iterator[Api]:
    with Api(as_asked) as server:
        yield server


def backing_off(server: Server, **buckets: Any) -> Cluster:
    """A cluster with these named buckets; a worker may hold all that is sent."""
    return cluster_on(
        server, None, conf={"global_rate_buckets": buckets, "global_rate_max_held": 5000}, loglevel="INFO"
    )


def answer_to(cluster: Cluster, task: str, url: str, **options: Any) -> float:
    """Let a task have its answer; returns when it had it (monotonic seconds)."""
    (task_id,) = cluster.send(task, args=(url,), **options)
    cluster.wait(lambda: any(it.task_id == task_id for it in cluster.records("answered")), 20, f"{task}: no answer")
    (at,) = [it.instant for it in cluster.records("answered") if it.task_id == task_id]
    return at


def pause_after(cluster: Cluster, at: float) -> tuple[float, float]:
    """Beside a backlog of `free`, wait for the end of the pause that began with an answer.

    Returns:
        How long after the answer the last of the others started, in seconds, and the first after the pause.
    """
    cluster.wait(lambda: any(it > at + IN_FORCE_S for it in cluster.instants("start", "free")), 20, "no start after it")
    after = [it - at for it in cluster.instants("start", "free") if it > at]
    return max((it for it in after if it <= IN_FORCE_S), default=0.0), min(it for it in after if it > IN_FORCE_S)


@pytest.mark.parametrize(
    "pool", ["prefork", "threads", *(pytest.param(it, marks=pytest.mark.long) for it in ("gevent", "eventlet", "solo"))]
)
def test_all_ways_in_which_a_task_passes_an_answer_on(
    empty_redis: Server, figures: Figures, api: Api, pool: str
) -> None:
    """Another task of the bucket starts 50 times a second. After the answer none does until the pause of 1 s is over.

    It begins within the 250 ms of all changes of a limit. The first start after it is one interval later at the most,
    and what a turn of a worker takes.
    """
    if pool in ("gevent", "eventlet"):
        pytest.importorskip(pool)
    with backing_off(empty_redis, api=API) as cluster:
        (name,) = cluster.start(1, pool=pool, concurrency=1 if pool == "solo" else 4, options=INCLUDE)
        cluster.send("free", 1000)
        url = f"{api.url}/429/{PAUSE_S}"
        pauses = {kind: pause_after(cluster, answer_to(cluster, f"answers.{kind}", url)) for kind in KINDS}
        unheard = {}
        for kind in SILENT:
            answer_to(cluster, f"answers.{kind}", url)
            time.sleep(0.3)
            starts = cluster.instants("start", "free")
            unheard[kind] = max(later - earlier for earlier, later in zip(starts[-10:], starts[-9:]))
        log = cluster.log(name)
    figures(f"{pool}: { ({kind: (round(last, 3), round(first, 3)) for kind, (last, first) in pauses.items()}) }")

    for kind, (_, first) in pauses.items():
        assert PAUSE_S - 0.05 <= first <= PAUSE_S + 1 / RATE + 0.25, kind
    assert max(unheard.values()) < 0.3, "what Celery tells nobody of is no pause"
    assert log.count("api: backs off for 1.0 s: HTTP 429, Retry-After 1 s") == len(KINDS)
    assert log.count("api: the back-off of 1.0 s is over") == len(KINDS)
    assert "Traceback" not in "".join(line for line in log.splitlines() if "global" in line)
