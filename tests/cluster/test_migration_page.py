"""What the page "Coming from another limiter" says is so: both sides of each pair run as they stand there."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state

from celery_global_rate.activation import check
from celery_global_rate.declared_limits import declared_limits
from celery_global_rate.limits.limit import Limit, spelled
from celery_global_rate.named_buckets import read_named_buckets
from testbed.server import root
from testbed.windows import excess, used

from ..conftest import Figures, Server

PAGE = (root() / "docs" / "migration.rst").read_text()
SUPPORT = root() / "tests" / "apps" / "migration"
#: Two workers of two processes.
WORKERS = 2


def block(title: str, caption: str) -> str:
    """The code block with a caption below a title."""
    (section,) = re.findall(rf"^{title}\n-+\n((?:.*\n)*?)(?=.*\n--|\Z)", PAGE, re.MULTILINE)
    pattern = rf"^\.\. code-block:: python\n   :caption: {caption}\n\n((?:   .*\n|\n)+)"
    (found,) = re.findall(pattern, section, re.MULTILINE)
    return textwrap.dedent(found)


@dataclass
class Project:
    """A block of the page as proj.py in a folder, and workers on it.

    Attributes:
        folder: of proj.py, logs and records.
        server: the Redis in place of the one of the page.
        python: of the workers.
        options: of the workers, beside Celery's usual ones.
    """

    folder: Path
    server: Server
    python: str = sys.executable
    options: tuple[str, ...] = ()
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def write(self, text: str) -> None:
        """The application; a worker that starts from now on runs it."""
        (self.folder / "proj.py").write_text(text.replace("redis://localhost:6379", self.server.url))

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(SUPPORT), "WORKERS": str(WORKERS), "PYTHONDONTWRITEBYTECODE": "1"}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Its workers, ready; they are stopped at the end."""
        command = [self.python, "-m", "celery", "-A", "proj", "worker", "-l", "INFO", "-c", "2"]
        logs = [self.folder / f"log-{len(self.workers) + number}" for number in range(WORKERS)]
        started = []
        for log in logs:
            options = ["-n", f"{log.name}@lab", "--without-mingle", "--without-gossip", *self.options]
            with log.open("wb") as out:
                started.append(
                    subprocess.Popen(
                        [*command, *options], cwd=self.folder, env=self._environment(), stdout=out, stderr=out
                    )
                )
        self.workers += started
        try:
            self.wait(lambda: all(" ready." in log.read_text() for log in logs), 30)
            yield
        finally:
            for worker in started:
                worker.terminate()
            for worker in started:
                worker.wait(30)

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Poll until a deadline; the logs are in the error."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(log.read_text()[-2000:] for log in sorted(self.folder.glob("log-*")))
                raise TimeoutError(f"{len(self.posts())} requests after {timeout_s} s\n{logs}")
            time.sleep(0.02)

    def send(self, count: int) -> None:
        """Tasks 0 to `count` - 1, from here: the page's application is not imported in this process."""
        with Celery("client", broker=f"{self.server.url}/0", set_as_current=False) as app:
            for number in range(count):
                app.send_task("proj.send", (number,))

    def _lines(self, name: str) -> list[list[str]]:
        path = self.folder / name
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def posts(self) -> list[float]:
        """When requests were made, monotonic seconds, sorted."""
        return sorted(float(instant) for instant, _ in self._lines("posts"))

    def numbers(self) -> list[int]:
        """Of the tasks that made them, sorted."""
        return sorted(int(number) for _, number in self._lines("posts"))

    def releases(self) -> list[float]:
        """When workers released tasks, sorted."""
        return sorted(float(instant) for (instant,) in self._lines("releases"))

    def retries(self) -> int:
        """How many retries the logs have."""
        return sum(log.read_text().count("Retry in ") for log in self.folder.glob("log-*"))

    def uncertainty_s(self) -> float:
        """R: the largest of all workers."""
        with Celery("client", broker=f"{self.server.url}/0", set_as_current=False) as app:
            replies = app.control.inspect(timeout=2, limit=WORKERS).stats() or {}
        assert len(replies) == WORKERS
        return max(float(it["global_rate"]["widest_clock_uncertainty_ms"]) for it in replies.values()) / 1000


@pytest.fixture
def project(tmp_path: Path, empty_redis: Server) -> Project:
    return Project(tmp_path, empty_redis)


def run_ours(project: Project, title: str, count: int) -> float:
    """The new side of a pair on `count` tasks, each of which runs once; returns R."""
    project.write(block(title, "now"))
    project.options = ("-I", "releases")
    with project.running():
        project.send(count)
        project.wait(lambda: len(project.posts()) >= count, 60)
        uncertainty_s = project.uncertainty_s()
    assert project.numbers() == list(range(count))
    return uncertainty_s


def run_theirs(project: Project, title: str, count: int, figures: Figures) -> list[float]:
    """The old side of a pair on `count` tasks, each of which makes one request; returns when."""
    project.write(block(title, "before"))
    with project.running():
        project.send(count)
        project.wait(lambda: len(project.posts()) >= count, 90)
    posts = project.posts()
    assert project.numbers() == list(range(count))
    figures(f"{title}, before: {count} in {posts[-1] - posts[0]:.2f} s, {project.retries()} retries")
    return posts


def check_even(project: Project, title: str, rate: str, figures: Figures, burst: int = 1) -> None:
    """Releases are within ``b + (w + D + R)/T`` in every window; after a second, starts are 0.99 of the rate or more.

    In the first second the processes run their first tasks, which takes them longer.
    """
    limit = Limit.parse(rate, burst)
    assert limit is not None
    uncertainty_s = run_ours(project, title, 5 * round(limit.per_second))
    releases, starts = project.releases(), project.posts()
    over = excess(releases, limit.interval_s, burst, limit.grace_s + uncertainty_s)
    share = used(starts, limit.interval_s, starts[0] + 1, starts[-1])
    figures(f"{title}, now: {rate}, {share:.4f} of it used, worst window {over:+.2f}")

    assert len(releases) == len(starts)
    assert over <= 0
    assert share >= 0.99


@pytest.mark.slow
def test_an_even_pace(project: Project, figures: Figures) -> None:
    check_even(project, "Redis counter", "50/s", figures)


@pytest.mark.long
def test_an_even_pace_in_place_of_divided_limits(project: Project, figures: Figures) -> None:
    check_even(project, "Per-worker limits divided by hand", "50/s", figures)


@pytest.mark.long
def test_a_moving_window(project: Project, figures: Figures) -> None:
    """200 tasks: 100 at once, and 100 more when these are P old.

    N + 1 releases span P - R at the least, and a hundredth more than P at the most.
    """
    n, period_s = 100, 5.0
    uncertainty_s = run_ours(project, "limits", 2 * n)
    releases, posts = project.releases(), project.posts()
    spans = [last - first for first, last in zip(releases, releases[n:])]
    figures(f"limits, now: 101 releases in {min(spans):.4f} to {max(spans):.4f} s, R {uncertainty_s * 1000:.1f} ms")

    assert min(spans) >= period_s - uncertainty_s
    assert posts[n] - posts[0] <= period_s / 0.99


def read(text: str, monkeypatch: pytest.MonkeyPatch) -> Celery:
    """The application of a block. It does not outlive the test."""
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))
    monkeypatch.syspath_prepend(SUPPORT)
    names: dict[str, Any] = {"__name__": "proj"}
    exec(text, names)
    app: Celery = names["app"]
    return app


def limits_of(app: Celery) -> str:
    """The limits of its task, which a worker would accept."""
    check(app)
    named = read_named_buckets(app.conf).values()
    return spelled((*declared_limits(app, app.tasks["proj.send"]), *(limit for it in named for limit in it.limits)))


@pytest.mark.parametrize(
    ("title", "limits"),
    [
        ("Redis counter", "50/s"),
        ("limits", "100/5s sliding"),
        ("Per-worker limits divided by hand", "50/s"),
    ],
)
def test_the_limits_of_each_new_side(title: str, limits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = read(block(title, "now"), monkeypatch)

    assert limits_of(app) == limits


def test_a_counter_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = block("Redis counter", "now").replace('(rate_limit="50/s")', "")
    app = read(smooth + block("Redis counter", "now, counted by the clock"), monkeypatch)

    assert limits_of(app) == "50/s fixed"


@pytest.mark.long
def test_a_redis_counter(project: Project, figures: Figures) -> None:
    """The old side: never more than 50 in a second of the clock, so 150 take two seconds' ends at the least."""
    posts = run_theirs(project, "Redis counter", 150, figures)

    assert posts[-1] - posts[0] > 1
    assert project.retries() >= 50


@pytest.mark.long
def test_a_divided_limit(project: Project, figures: Figures) -> None:
    """The old side: each worker has 25/s, and 60 tasks are 58 T for the two of them if both get the same number.

    None of them starts more than its rate and one at once, so 60 take 28 of its own T of 40 ms or longer.
    """
    posts = run_theirs(project, "Per-worker limits divided by hand", 60, figures)

    assert posts[-1] - posts[0] >= 28 / 25
