"""What the page "Coming from another limiter" says is so: both sides of each pair run as they stand there."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import textwrap
import time
from collections import Counter
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
from testbed.environments import environment
from testbed.server import root
from testbed.stalls import Stalls, watched
from testbed.windows import excess, used

from ..conftest import Figures, Server

PAGE = (root() / "docs" / "migration.rst").read_text()
SUPPORT = root() / "tests" / "apps" / "migration"
#: Two workers of two processes.
WORKERS = 2
#: What the old side of a pair needs beside Celery, as the page names it.
REQUIREMENTS = {
    "limits": "limits==5.8.0",
    "throttled-py": "throttled-py==3.5.0",
    "celery-heimdall": "celery-heimdall==1.0.1",
    "django-celery-token-bucket": "django-celery-token-bucket==5.0.0",
}


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
        stalls: of the workers and the Redis, where they were watched.
        uncertainty_s: R, the largest of all workers, once they were asked.
        missed: slots that they have missed.
    """

    folder: Path
    server: Server
    python: str = sys.executable
    options: tuple[str, ...] = ()
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stalls: Stalls = field(default_factory=Stalls)
    uncertainty_s: float = 0.0
    missed: int = 0

    def write(self, text: str) -> None:
        """The application; a worker that starts from now on runs it."""
        (self.folder / "proj.py").write_text(text.replace("redis://localhost:6379", self.server.url))

    def __post_init__(self) -> None:
        self.environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "WORKERS": str(WORKERS)}

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
                        [*command, *options], cwd=self.folder, env=self.environment, stdout=out, stderr=out
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
                worker.wait(60)  # a process of billiard may wait 30 s for its last result to be read

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Poll until a deadline; the logs are in the error."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(log.read_text()[-2000:] for log in sorted(self.folder.glob("log-*")))
                raise TimeoutError(f"{len(self.posts())} requests after {timeout_s} s\n{logs}")
            time.sleep(0.02)

    def send(self, count: int, name: str = "proj.send", kwargs: dict[str, str] | None = None) -> None:
        """Tasks 0 to `count` - 1, from here: the page's application is not imported in this process."""
        with Celery("client", broker=f"{self.server.url}/0", set_as_current=False) as app:
            for number in range(count):
                app.send_task(name, () if kwargs else (number,), kwargs)

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

    def ask(self) -> None:
        """Ask the workers for R and for the slots that they have missed."""
        with Celery("client", broker=f"{self.server.url}/0", set_as_current=False) as app:
            replies = app.control.inspect(timeout=2, limit=WORKERS).stats() or {}
        assert len(replies) == WORKERS
        facts = [it["global_rate"] for it in replies.values()]
        self.uncertainty_s = max(float(it["widest_clock_uncertainty_ms"]) for it in facts) / 1000
        self.missed = sum(it["missed_slots"] for it in facts)


@pytest.fixture
def project(tmp_path: Path, empty_redis: Server) -> Project:
    return Project(tmp_path, empty_redis)


def run_ours(project: Project, title: str, count: int) -> float:
    """The new side of a pair on `count` tasks, each of which runs once; returns R."""
    project.write(block(title, "now"))
    project.options = ("-I", "releases")
    with project.running(), watched(lambda: project.workers, project.server) as project.stalls:
        project.send(count)
        project.wait(lambda: len(project.posts()) >= count, 60)
        project.ask()
    assert project.numbers() == list(range(count))
    return project.uncertainty_s


def python_of(folder: Path, title: str) -> str:
    """The Python of an environment with the package of a pair; where it cannot be installed, the test is skipped."""
    try:
        return environment(folder / "env", REQUIREMENTS[title])
    except RuntimeError as exc:
        pytest.skip(str(exc))


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


def check_even(project: Project, title: str, rate: str, figures: Figures, burst: int = 1, seconds: int = 5) -> None:
    """Releases are within ``b + (w + D + R)/T`` in every window; after a second, starts are 0.99 of the rate or more,
    or what stalls of the machine leave of it.

    In the first second the processes run their first tasks, which takes them longer.
    """
    limit = Limit.parse(rate, burst)
    assert limit is not None
    uncertainty_s = run_ours(project, title, seconds * round(limit.per_second))
    releases, starts = project.releases(), project.posts()
    over = excess(releases, limit.interval_s, burst, limit.grace_s + uncertainty_s)
    share = used(starts, limit.interval_s, starts[0] + 1, starts[-1])
    stalled = project.stalls.most(limit, starts[0] + 1, starts[-1], project.missed)
    figures(
        f"{title}, now: {rate}, {share:.4f} of it used, stalls took {stalled:.3f} at the most, worst window {over:+.2f}"
    )

    assert len(releases) == len(starts)
    assert over <= 0
    assert share >= 0.99 - stalled


@pytest.mark.slow
def test_an_even_pace(project: Project, figures: Figures) -> None:
    check_even(project, "Redis counter", "50/s", figures)


@pytest.mark.long
@pytest.mark.parametrize(
    ("title", "rate", "burst"),
    [("Per-worker limits divided by hand", "50/s", 1), ("throttled-py", "50/s", 5), ("celery-heimdall", "10/s", 1)],
)
def test_an_even_pace_in_place_of(project: Project, figures: Figures, title: str, rate: str, burst: int) -> None:
    check_even(project, title, rate, figures, burst, seconds=10)


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
        ("throttled-py", "50/s, burst 5"),
        ("celery-heimdall", "10/s"),
        ("django-celery-token-bucket", "50/refill at * * * * *, at most 50"),
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
def test_a_moving_window_with_a_cost(project: Project, figures: Figures) -> None:
    """Three units each: 33 tasks at once, since 34 would be 102 units, and 33 more when the first of them is P old."""
    of_both = f"{block('limits', 'now')}\n\n{block('limits', 'now, with a cost')}"
    n, period_s = 33, 5.0
    project.write(of_both)
    project.options = ("-I", "releases")
    with project.running():
        project.send(2 * n)
        project.wait(lambda: len(project.posts()) >= 2 * n, 60)
        project.ask()
    releases, posts = project.releases(), project.posts()
    spans = [last - first for first, last in zip(releases, releases[n:])]
    figures(f"limits with a cost of 3: 34 releases in {min(spans):.4f} to {max(spans):.4f} s")

    assert project.numbers() == list(range(2 * n))
    assert min(spans) >= period_s - project.uncertainty_s
    assert posts[n] - posts[0] <= period_s / 0.99


def test_a_cost_of_a_moving_window(monkeypatch: pytest.MonkeyPatch) -> None:
    app = read(f"{block('limits', 'now')}\n\n{block('limits', 'now, with a cost')}", monkeypatch)

    assert limits_of(app) == "100/5s sliding"
    assert read_named_buckets(app.conf)["send"].cost == 3


@pytest.mark.long
def test_a_redis_counter(project: Project, figures: Figures) -> None:
    """The old side: never more than 50 in a second of the clock, so 150 see the ends of two, a second apart."""
    posts = run_theirs(project, "Redis counter", 150, figures)

    assert posts[-1] - posts[0] > 1
    assert project.retries() >= 1


@pytest.mark.long
def test_a_divided_limit(project: Project, figures: Figures) -> None:
    """The old side: each worker has 25/s, and 60 tasks are 58 T for the two of them if both get the same number.

    None of them starts more than its rate and one at once, so 60 take 28 of its own T of 40 ms or longer.
    """
    posts = run_theirs(project, "Per-worker limits divided by hand", 60, figures)

    assert posts[-1] - posts[0] >= 28 / 25


@pytest.mark.long
@pytest.mark.parametrize(("title", "count"), [("limits", 150), ("throttled-py", 150), ("celery-heimdall", 150)])
def test_a_package_as_before(project: Project, figures: Figures, title: str, count: int) -> None:
    """The old side, in an environment of its own: more tasks than may start at once, so some wait by a retry."""
    project.python = python_of(project.folder, title)
    run_theirs(project, title, count, figures)

    assert project.retries() >= 1


@pytest.mark.long
def test_a_queue_of_tokens(project: Project, figures: Figures) -> None:
    """The old side: nothing starts before the first refill; a refill is sent by the test, in place of beat."""
    title = "django-celery-token-bucket"
    project.python = python_of(project.folder, title)
    settings = block(title, "before, settings.py")
    (project.folder / "settings.py").write_text(f"{settings}SECRET_KEY = 'unused'\nUSE_TZ = True\n")
    project.environment["DJANGO_SETTINGS_MODULE"] = "settings"
    project.write(block(title, "before"))
    with project.running():
        project.send(60)
        project.wait(lambda: project.retries() >= 60, 30)
        assert project.posts() == []
        project.send(1, "django_celery_token_bucket.tasks.token_bucket_refill", {"name": "api"})
        project.wait(lambda: len(project.posts()) >= 50, 30)
        retries = project.retries()
        project.wait(lambda: project.retries() >= retries + 10, 30)
    figures(f"{title}, before: {len(project.posts())} of 60 after one refill, {project.retries()} retries")

    assert len(project.posts()) == 50


@pytest.mark.long
def test_refills_without_a_queue_of_tokens(project: Project, figures: Figures) -> None:
    """100 tasks, sent ten seconds or more before a minute ends: 50 start at once, and 50 when the next one begins.

    The clock of this machine is that of Redis. All tokens are used in both minutes, the second within a second.
    """
    left_s = 60 - time.time() % 60
    if left_s < 25:
        time.sleep(left_s)
    run_ours(project, "django-celery-token-bucket", 100)
    offset_s = time.time() - time.monotonic()
    starts = [instant + offset_s for instant in project.posts()]
    edge = starts[0] // 60 * 60 + 60
    windows = Counter(instant // 60 * 60 - edge for instant in starts)
    figures(f"50 a minute: {dict(windows)} starts; after the edge {starts[50] - edge:.3f} to {starts[-1] - edge:.3f} s")

    assert windows == {-60: 50, 0: 50}
    assert starts[-1] <= edge + 1


@pytest.mark.long
def test_what_waits_for_a_retry_runs_with_the_new_code(project: Project, figures: Figures) -> None:
    """Old workers are stopped while 100 of 150 tasks wait for their second try; new ones run these, each once."""
    project.write(block("Redis counter", "before"))
    with project.running():
        project.send(150)
        project.wait(lambda: len(project.posts()) >= 50 and project.retries() >= 10, 30)
    before = len(project.posts())
    project.write(block("Redis counter", "now"))
    with project.running():
        project.wait(lambda: len(project.posts()) >= 150, 30)
    figures(f"{before} of 150 on old workers, after {project.retries()} retries")

    assert before < 150
    assert project.numbers() == list(range(150))
