"""Every way to switch it on, a real worker for each, all at once on one limit; and what a daemon says that refuses.

A worker is known to be on by its own word (`inspect stats` has `global_rate`), and all of them because together they
keep the rate of one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from celery_global_rate.limits.limit import Limit
from testbed.server import Redis, root
from testbed.windows import excess

from ..apps.starts import KEY

AUTO = "celery_global_rate.auto"
FLEET = "tests.apps.fleet"
LIMIT = Limit.parse("10/s")
#: What a busy machine may add to a start, in seconds: 14 workers share its processors.
J_S = 0.1

#: Options of every worker here: small, and without talk among workers.
SMALL = ["-P", "solo", "--without-gossip", "--without-mingle"]

#: The two shell commands of Celery's unit for systemd, which runs them with the variables of its environment file.
UNIT_START = (
    "${CELERY_BIN} -A $CELERY_APP multi start $CELERYD_NODES --pidfile=${CELERYD_PID_FILE} "
    '--logfile=${CELERYD_LOG_FILE} --loglevel="${CELERYD_LOG_LEVEL}" $CELERYD_OPTS'
)
UNIT_STOP = (
    "${CELERY_BIN} multi stopwait $CELERYD_NODES --pidfile=${CELERYD_PID_FILE} "
    '--logfile=${CELERYD_LOG_FILE} --loglevel="${CELERYD_LOG_LEVEL}"'
)

#: For each way: what the application's code says, the options of the worker, and its environment. URL is the limiter.
WORKERS: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "two-lines": ("lines", [], {}),
    "imports": ("imports", [], {}),
    "option": ("", ["--global-rate"], {}),
    "environment": ("", [], {"CELERY_WORKER_GLOBAL_RATE": "1"}),
    "option-url": ("no setting", ["--global-rate-url=URL"], {}),
    "environment-url": ("no setting", [], {"CELERY_WORKER_GLOBAL_RATE_URL": "URL"}),
    "include": ("", ["-I", AUTO], {}),
    "environment-include": ("", [], {"CELERY_WORKER_INCLUDE": AUTO}),
    "all-and-X": ("lines imports", ["--global-rate", "-I", AUTO, "-X", "other"], {"CELERY_WORKER_GLOBAL_RATE": "1"}),
}
EMBEDDED = ["app.Worker", "start_worker"]
WAYS = [*WORKERS, *EMBEDDED, "multi", "systemd", "django"]
HAS_DJANGO = importlib.util.find_spec("django") is not None


class Fleet:
    """One worker for each way, on one broker."""

    def __init__(self, server: Redis, directory: Path) -> None:
        self.server = server
        self.limits = f"{server.url}/1"
        self.directory = directory
        self.app = Celery("watch", broker=f"{server.url}/0", set_as_current=False)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.daemons: list[dict[str, str]] = []
        self.ways = [way for way in WAYS if way != "django" or HAS_DJANGO]

    def environment(self, code: str, more: dict[str, str]) -> dict[str, str]:
        limits = {} if code == "no setting" else {"FLEET_LIMITS": self.limits}
        base = {"PYTHONPATH": str(root()), "PYTHONWARNINGS": "ignore", "FLEET_REDIS": self.server.url, **limits}
        own = {name: value.replace("URL", self.limits) for name, value in more.items()}
        return {**os.environ, **base, "FLEET_CODE": code, **own}

    def start(self) -> None:
        for way, (code, options, more) in WORKERS.items():
            options = [option.replace("URL", self.limits) for option in options]
            self.run(["-m", "celery", "-A", FLEET, "worker", "-n", f"{way}@lab", *SMALL, *options], code, more)
        for way in EMBEDDED:
            self.run(["-m", FLEET, way, f"{way}@lab"], "lines" if way == "start_worker" else "imports")
        if HAS_DJANGO:
            self.run(["-m", "celery", "-A", "tests.apps.shop", "worker", "-n", "django@lab", *SMALL])
        self.daemon("multi", " ".join(["--global-rate", *SMALL]))
        self.daemon("systemd", " ".join(SMALL), CELERY_WORKER_GLOBAL_RATE="1")

    def run(self, arguments: Sequence[str], code: str = "", more: dict[str, str] | None = None) -> None:
        with (self.directory / f"{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=self.environment(code, more or {}),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=root(),
            )
        self.processes.append(process)

    def daemon(self, way: str, options: str, **more: str) -> None:
        """As the unit does: its environment file becomes the environment of a shell."""
        file = {
            "CELERYD_NODES": f"{way}@lab",
            "CELERY_BIN": f"{sys.executable} -m celery",
            "CELERY_APP": FLEET,
            "CELERYD_OPTS": options,
            "CELERYD_PID_FILE": str(self.directory / "%n.pid"),
            "CELERYD_LOG_FILE": str(self.directory / "%n%I.log"),
            "CELERYD_LOG_LEVEL": "INFO",
        }
        self.daemons.append(self.environment("", {**file, **more}))
        subprocess.run(["/bin/sh", "-c", UNIT_START], env=self.daemons[-1], cwd=root(), check=True, timeout=60)

    def stats(self) -> dict[str, Any]:
        """What each worker says of itself, for all that answer."""
        replies = self.app.control.inspect(timeout=2, limit=len(self.ways)).stats() or {}
        ways = {name: "start_worker" if name.startswith("gen") else name.partition("@")[0] for name in replies}
        return {ways[name]: reply for name, reply in replies.items()}

    def logs(self) -> str:
        return "".join(f"\n--- {path.name}\n{path.read_text()[-1500:]}" for path in self.directory.glob("*.log"))

    def close(self) -> None:
        for environment in self.daemons:
            subprocess.run(["/bin/sh", "-c", UNIT_STOP], env=environment, cwd=root(), check=False, timeout=60)
        for pid_file in self.directory.glob("*.pid"):  # of a daemon that has not stopped
            with contextlib.suppress(ValueError, ProcessLookupError):
                os.kill(int(pid_file.read_text()), signal.SIGKILL)
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.communicate()
        self.app.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """All workers, ready."""
    server = Redis()
    try:
        server.start()
    except RuntimeError as reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no Redis: {reason}")
    fleet = Fleet(server, tmp_path_factory.mktemp("fleet"))
    try:
        fleet.start()
        deadline = time.monotonic() + 60
        while set(fleet.stats()) != set(fleet.ways):
            assert time.monotonic() < deadline, f"{set(fleet.ways) - set(fleet.stats())} missing{fleet.logs()}"
            time.sleep(0.1)
        yield fleet
    finally:
        fleet.close()
        server.close()


@pytest.fixture(scope="module")
def stats(fleet: Fleet) -> dict[str, Any]:
    return fleet.stats()


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_is_on_by_its_own_word(stats: dict[str, Any], way: str) -> None:
    """On, on the Redis that was named, which is not the broker's database, and under one prefix."""
    if way == "django" and not HAS_DJANGO:
        pytest.skip("Django is not installed")

    assert "global_rate" in stats[way]
    assert stats[way]["global_rate"]["redis"].endswith("/1")
    assert stats[way]["global_rate"]["prefix"] == "global-rate:v1:fleet"


def test_exclude_queues_keeps_its_meaning(fleet: Fleet) -> None:
    queues = fleet.app.control.inspect(["all-and-X@lab", "option@lab"], timeout=2, limit=2).active_queues()
    names = {name: {queue["name"] for queue in found} for name, found in queues.items()}

    assert names == {"all-and-X@lab": {"celery"}, "option@lab": {"celery", "other"}}


def test_all_of_them_share_one_limit(fleet: Fleet) -> None:
    """120 tasks at 10/s: no window has more than ``b + (w + D + R + J)/T`` starts, and every worker has some.

    One worker that is not on adds its own 10/s. The slots go round: of 120, 14 workers get about 8 each.
    """
    client = fleet.server.client()
    for _ in range(200):
        fleet.app.send_task("fleet.send", queue="celery")
    deadline = time.monotonic() + 30
    while client.llen(KEY) < 120 and time.monotonic() < deadline:
        time.sleep(0.05)
    pushed: list[Any] = client.lrange(KEY, 0, -1)
    lines = [line.decode().split() for line in pushed]
    instants = sorted(float(instant) for instant, _ in lines)
    said = fleet.stats()
    uncertainty_s = max(each["global_rate"]["widest_clock_uncertainty_ms"] for each in said.values()) / 1000
    started = {name for name, each in said.items() if str(each["pid"]) in {pid for _, pid in lines}}
    assert LIMIT is not None

    assert len(lines) >= 120
    assert excess(instants, LIMIT.interval_s, 1, LIMIT.grace_s + uncertainty_s + J_S) <= 0
    assert started == set(fleet.ways)


def test_check_says_so(fleet: Fleet) -> None:
    """One line for each worker, and no complaint."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", FLEET, "global-rate", "check", "-t", "3"],
        env=fleet.environment("", {}),
        cwd=root(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    on = [line for line in done.stdout.splitlines() if line.split()[1:2] == ["on"]]

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(on) == len(fleet.ways)


def test_a_daemon_that_refuses_says_why_in_its_log_file(tmp_path: Path) -> None:
    """`celery multi` reports success, and standard error of a detached worker goes nowhere."""
    bad = {"broker": "redis://localhost:1/0", "options": {"rate_limit": "10/x"}}
    log = tmp_path / "w1.log"
    command = [sys.executable, "-m", "celery", "multi", "start", "w1", "-A", "tests.apps.bad", "--global-rate"]
    subprocess.run(
        [*command, *SMALL, f"--pidfile={tmp_path}/%n.pid", f"--logfile={tmp_path}/%n.log"],
        env={**os.environ, "PYTHONPATH": str(root()), "GLOBAL_RATE_BAD": json.dumps(bad)},
        check=True,
        timeout=60,
    )
    deadline = time.monotonic() + 20
    while not (log.exists() and "\n" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert "global-rate: task proj.send: rate '10/x' cannot be read" in log.read_text()
    assert not (tmp_path / "w1.pid").exists()
