"""Stock Celery or ours, with its own servers, and tests of Celery run on it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from testbed.server import RabbitMQ, Redis, root

#: A test that takes longer hangs, in seconds. Celery's longest one takes two minutes and a half.
HANGS_S = 240.0
#: So long a session may take to end after its last test, in seconds.
END_S = 30.0
#: After so many tests that did not pass nothing is learned from more.
MOST_FAILED = 5

#: Prints what workers log while they run, so that it is there when one hangs.
LOGGED = ("-o", "log_cli=true", "-p", "no:cacheprovider")
BAD = ("failed", "error", "hung", "died")


@dataclass
class Run:
    """What came out of some tests.

    Attributes:
        outcomes: by test: passed, failed, error (before or after the test), skipped, xfailed, hung, or died.
        reasons: of those that did not pass, a line each.
        received: tasks with a limit that workers have received.
        released: how many of them went to the pool in a slot of ours.
        slots: given out by Redis for them; it forgets them after a minute, so there may have been more.
        seconds: how long all of them took.
        durations_s: how long each took, with all that came before and after it, in seconds.
        logs: by test, what the session that ran it has printed.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    received: int = 0
    released: int = 0
    slots: int = 0
    seconds: float = 0.0
    durations_s: dict[str, float] = field(default_factory=dict)
    logs: dict[str, Path] = field(default_factory=dict)


class Side:
    """Where tests run.

    Args:
        source: the folder that has Celery's tests; they run in a copy of it.
        broker: `redis` or `rabbitmq`.
        is_ours: whether every worker limits every task.
        logs: the folder for what they print.
        hangs_s: a test that takes longer is ended, in seconds.
    """

    def __init__(self, source: Path, broker: str, is_ours: bool, logs: Path, hangs_s: float = HANGS_S) -> None:
        self.name = "ours" if is_ours else "stock"
        self._is_ours = is_ours
        self._logs = logs
        self._hangs_s = hangs_s
        self._directory = Path(tempfile.mkdtemp(prefix="global-rate-suite-"))
        self._folder = self._directory / "celery"
        shutil.copytree(source, self._folder)
        self.redis = Redis()
        self.rabbitmq = RabbitMQ() if broker == "rabbitmq" else None
        self._session: subprocess.Popen[bytes] | None = None
        self._sessions = 0
        self._is_closed = False

    def start(self) -> Side:
        self.redis.start()
        if self.rabbitmq:
            self.rabbitmq.start()
        return self

    def close(self) -> None:
        """End what runs, at once."""
        if self._is_closed:
            return
        self._is_closed = True
        if session := self._session:
            _kill(session)
        self.redis.close()
        if self.rabbitmq:
            self.rabbitmq.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def run(self, tests: Sequence[str]) -> Run:
        """Run tests one after the other, by one worker, and by a new one after each test that has not passed."""
        run, begin = Run(), time.monotonic()
        while left := [test for test in tests if test not in run.outcomes]:
            if self._is_closed or sum(outcome in BAD for outcome in run.outcomes.values()) >= MOST_FAILED:
                break
            try:
                self._empty()
                self._run_session(left, run)
                run.slots += self._slots()
            except (OSError, RedisError, KombuError):
                if not self._is_closed:
                    raise
        run.seconds = time.monotonic() - begin
        return run

    def collect(self, files: Sequence[str], expression: str) -> tuple[list[str], list[str]]:
        """The tests in files of `t/integration` that pytest's `-k` chooses, and the files that have none, and why."""
        tests: list[str] = []
        unreadable: list[str] = []
        for name in files:
            command = [*self._command(), "--collect-only", "-qq", "-k", expression, f"t/integration/{name}"]
            done = subprocess.run(
                command, cwd=self._folder, env=self._environment(), stdout=subprocess.PIPE, encoding="utf-8"
            )
            found = [line for line in done.stdout.splitlines() if line.startswith("t/") and "::" in line]
            tests += found
            if not found:
                errors = [line[1:].strip() for line in done.stdout.splitlines() if line.startswith("E ")]
                unreadable.append(f"{name}: {errors[-1] if errors else 'no tests'}")
        return tests, unreadable

    def _command(self) -> list[str]:
        plugins = ["celery.contrib.pytest", "tests.celery_suite.watch"]
        if self._is_ours:
            plugins.append("tests.celery_suite.limited")
        options = [word for plugin in plugins for word in ("-p", plugin)]
        # Celery's marks are known to plugins that repeat tests and end them, which we do ourselves
        return [sys.executable, "-m", "pytest", *options, "-x", "-v", "--tb=short", *LOGGED]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "PYTEST_"))}
        redis = f"{self.redis.url}/0"
        # for workers that a test starts by command
        ours = {"CELERY_WORKER_INCLUDE": "tests.celery_suite.limited", "CELERY_WORKER_GLOBAL_RATE_URL": redis}
        return {
            **kept,
            "GLOBAL_RATE_SUITE_EVENTS": str(self._events),
            "HOME": str(self._directory),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # some start `celery`
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(root()),
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.redis.port),
            "TEST_BACKEND": redis,
            "TEST_BROKER": self.rabbitmq.url if self.rabbitmq else redis,
            "TMPDIR": str(self._directory),
            "WORKER_LOGLEVEL": "INFO",  # some tests read the log
            **(ours if self._is_ours else {}),
        }

    @property
    def _events(self) -> Path:
        return self._directory / f"events-{self._sessions}"

    def _empty(self) -> None:
        """What another session has left would be run by this one."""
        self.redis.client(timeout_s=10).flushall()
        if self.rabbitmq:
            self.rabbitmq.purge()

    def _slots(self) -> int:
        client = self.redis.client(timeout_s=10)
        counts = (client.hget(key, "given") for key in client.scan_iter("*global-rate:*", _type="hash"))
        return sum(int(count or 0) for count in counts)

    def _run_session(self, tests: Sequence[str], run: Run) -> None:
        """One session of pytest: until a test fails, or hangs."""
        self._sessions += 1
        log = self._logs / f"{self.name}-{self.redis.port}-{self._sessions}.log"
        with open(log, "wb") as output:
            self._session = session = subprocess.Popen(
                [*self._command(), *tests],
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        before = run.received, run.released
        current: str | None = tests[0]
        until = time.monotonic() + self._hangs_s
        try:
            for event in self._events_of(session):
                if event is None:
                    if self._is_closed or time.monotonic() > until:
                        break
                    continue
                if "begin" in event:
                    current, until = event["begin"], time.monotonic() + self._hangs_s
                    run.logs[event["begin"]] = log
                elif "end" in event:
                    run.outcomes[event["end"]], run.reasons[event["end"]] = event["outcome"], event["reason"]
                    run.durations_s[event["end"]] = event["took_s"]
                    current, until = None, time.monotonic() + END_S
                else:
                    run.received, run.released = before[0] + event["received"], before[1] + event["released"]
            if current is not None and not self._is_closed:
                is_running = session.poll() is None
                run.outcomes[current] = "hung" if is_running else "died"
                run.reasons[current] = (
                    f"after {self._hangs_s:.0f} s" if is_running else f"exit code {session.returncode}"
                )
            if session.poll() is None and not self._is_closed:
                _show_threads(session)
        finally:
            _kill(session)
            self._session = None

    def _events_of(self, session: subprocess.Popen[bytes]) -> Iterator[dict[str, Any] | None]:
        """What a session writes, and None now and then, until it ends."""
        done, rest = 0, b""
        is_over = False
        while not is_over:
            is_over = session.poll() is not None
            with contextlib.suppress(FileNotFoundError), open(self._events, "rb") as file:
                file.seek(done)
                text = file.read()
                done += len(text)
                *lines, rest = (rest + text).split(b"\n")
                yield from (json.loads(line) for line in lines)
            yield None
            time.sleep(0.05)


def _show_threads(session: subprocess.Popen[bytes]) -> None:
    """Have it print where its threads are, which ends it."""
    session.send_signal(signal.SIGABRT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        session.wait(5)


def _kill(session: subprocess.Popen[bytes]) -> None:
    """End a session with its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(session.pid, signal.SIGKILL)
    session.wait()
