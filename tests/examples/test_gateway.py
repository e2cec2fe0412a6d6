"""The gateway: its callers and Celery workers on one bucket of 50/s, both with more work than it allows."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from celery_global_rate.limits.limit import Limit
from testbed.server import root
from testbed.windows import excess, since, used

from ..conftest import Figures, Server
from .api import Api
from .example import Example

RATE = 50
APPS = root() / "tests" / "apps"


class Gateway(Example):
    """The example with an API that notes what comes, and slots that are recorded where they are used.

    Args:
        folder: for its files.
        server: the Redis of broker and limits.
        api: what is called.
        patience_s: of the gateway.
    """

    def __init__(self, folder: Path, server: Server, api: Api, patience_s: float = 1.0) -> None:
        super().__init__("gateway", folder, server, api, PATIENCE_S=str(patience_s))
        self.environment["GATEWAY_URL"] = self.url
        for support in ("gateway/recorded.py", "migration/releases.py"):
            shutil.copy(APPS / support, self.folder)

    def start_gateway(self) -> None:
        """Under uvicorn; returns when it accepts requests."""
        self.start_server("gateway", "uvicorn", "recorded:gateway", "--port", str(self.port), "--log-level", "warning")

    def recorded(self, what: str) -> list[list[float]]:
        """What the gateway has recorded of one kind: the instant, monotonic seconds, and what is beside it."""
        lines = [line.split() for line in (self.folder / "grants").read_text().splitlines()]
        return [[float(number) for number in numbers] for name, *numbers in lines if name == what]

    def released(self) -> list[float]:
        """When workers released tasks, monotonic seconds, sorted."""
        return sorted(map(float, (self.folder / "releases").read_text().split()))

    def uncertainty_s(self) -> float:
        """R: the largest of all workers."""
        stats = json.loads(self.run("-m", "celery", "-A", "proj", "inspect", "stats", "--json"))
        return max(float(it["global_rate"]["widest_clock_uncertainty_ms"]) for it in stats.values()) / 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    "seconds", [pytest.param(6, id="short"), pytest.param(60, id="minute", marks=pytest.mark.long)]
)
def test_workers_and_gateway_share_a_bucket(
    tmp_path: Path, own_redis: Server, api: Api, figures: Figures, seconds: int
) -> None:
    """Together they use 0.99 of 50/s, and no window is above the promise.

    A worker's slot is used when it releases a task, at most D + R from the slot's instant. The gateway's is used when
    its event loop resumes the caller, later by as much as the loop is late: J, measured by a task that ticks in it.
    """
    with Gateway(tmp_path, own_redis, api) as gateway:
        gateway.start_workers(2, "proj", "-c", "2", "-I", "releases")
        gateway.start_gateway()
        gateway.start("load", "load")
        gateway.wait(lambda: min(len(api.instants(path)) for path in ("/orders/", "/customers/")) >= RATE, 30)
        begin = time.monotonic()
        time.sleep(seconds)
        end = time.monotonic()
        time.sleep(0.5)
        uncertainty_s = gateway.uncertainty_s()
        granted, released = [instant for (instant,) in gateway.recorded("granted")], gateway.released()
    late_s = max(late_s for instant, late_s in gateway.recorded("tick") if begin <= instant <= end)
    limit = Limit.parse(f"{RATE}/s")
    assert limit is not None
    slots = sorted(granted + released)
    share = used(slots, limit.interval_s, begin, end)
    worst = excess(since(slots, begin, end), limit.interval_s, 1, limit.grace_s + uncertainty_s + late_s)
    by_gateway, by_workers = (len(since(it, begin, end)) / seconds for it in (granted, released))
    arrived = since(api.instants(), begin, end)
    figures(
        f"{share:.4f} of {RATE}/s: gateway {by_gateway:.1f}/s, workers {by_workers:.1f}/s; worst window {worst:+.2f} "
        f"(R {uncertainty_s * 1000:.1f} ms, J {late_s * 1000:.1f} ms); the API got {len(arrived) / seconds:.2f}/s"
    )

    assert 0.99 <= share <= 1.01
    assert worst <= 0
    assert min(by_gateway, by_workers) >= 0.2 * RATE


@pytest.mark.long
def test_workers_and_gateway_pause_together(tmp_path: Path, empty_redis: Server, api: Api, figures: Figures) -> None:
    """The API answers one task with 429 and a `Retry-After` of two seconds: within 250 ms neither asks any more.

    After that the requests of both come again, and the task that was refused succeeds when it is retried.
    """
    pause_s, spread_s = 2.0, 0.25
    with Gateway(tmp_path, empty_redis, api) as gateway:
        gateway.start_workers(2, "proj", "-c", "2", "-I", "releases")
        gateway.start_gateway()
        gateway.start("load", "load")
        gateway.wait(lambda: min(len(api.instants(path)) for path in ("/orders/", "/customers/")) >= RATE // 2, 30)
        api.refusals.append(("/customers/", str(int(pause_s))))
        gateway.wait(lambda: not api.refusals, 5)
        refused_at = time.monotonic()
        time.sleep(pause_s + 1)
        gateway.stop("load")
        gateway.wait(lambda: Counter(path for _, _, path in list(api.calls)).most_common(1)[0][1] == 2, 30)
    after = {path: since(api.instants(path), refused_at) for path in ("/orders/", "/customers/")}
    calls = sorted(after["/orders/"] + after["/customers/"])
    early = since(calls, refused_at, refused_at + spread_s)
    resumed = {path: since(instants, refused_at + spread_s)[0] - refused_at for path, instants in after.items()}
    figures(f"{len(early)} requests in the first {spread_s * 1000:.0f} ms; then none until {resumed}")

    assert min(resumed.values()) >= pause_s - spread_s
    assert max(resumed.values()) <= pause_s + 1


@pytest.mark.slow
def test_a_wait_beyond_its_patience_is_refused(tmp_path: Path, empty_redis: Server, api: Api, figures: Figures) -> None:
    """Of 60 callers at once, with 0.5 s of patience: those with a slot in that time wait for it.

    These are 26 of 50/s, the first at once, and some more if the first slots are given before the last caller has come.
    The others are told when to come again, and the API does not hear of them.
    """

    def ask(number: int) -> tuple[float, int, str | None]:
        begin = time.monotonic()
        status, headers, _ = gateway.ask("GET", f"/orders/{number}")
        return time.monotonic() - begin, status, headers.get("Retry-After")

    with Gateway(tmp_path, empty_redis, api, patience_s=0.5) as gateway, ThreadPoolExecutor(60) as callers:
        gateway.start_gateway()
        answers = list(callers.map(ask, range(60)))
        time.sleep(1)
        later = ask(60)
    passed = [took_s for took_s, status, _ in answers if status == 200]
    refused = [(took_s, retry_after) for took_s, status, retry_after in answers if status == 429]
    slowest_s = max(took_s for took_s, _ in refused)
    figures(f"{len(passed)} passed, in {max(passed):.2f} s; {len(refused)} refused, in {slowest_s:.2f} s")

    assert len(passed) + len(refused) == 60
    assert 26 <= len(passed) <= 45
    assert {retry_after for _, retry_after in refused} == {"1"}
    assert max(max(passed), slowest_s) < 1.5
    assert later[1:] == (200, None)
    assert len(api.calls) == len(passed) + 1


@pytest.mark.slow
def test_requests_and_answers_pass_unchanged(tmp_path: Path, empty_redis: Server, api: Api) -> None:
    with Gateway(tmp_path, empty_redis, api) as gateway:
        gateway.start_gateway()
        status, headers, body = gateway.ask("POST", "/a%20b/c?x=1&x=%26", b"hello", X_Mark="7")

    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"method": "POST", "path": "/a%20b/c?x=1&x=%26", "sent": "hello", "mark": "7"}
