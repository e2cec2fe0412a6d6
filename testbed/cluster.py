"""Real workers on this machine: start them, load them, hurt them, and read what they recorded."""

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
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import pools
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from .meanwhile import meanwhile
from .records import Record, Tail
from .server import root


@dataclass
class Cluster:
    """Workers that share an application, a broker and, with the extension on, a limiter.

    Args:
        broker: URL.
        limiter: URL of the limiter's Redis; None leaves it to the extension.
        rate: the rate of the tasks `limited` and `late`.
        extension: False for stock Celery.
        burst: `rate_burst` of `limited`.
        conf: more settings.
        loglevel: of the workers.
        lifelines: record what workers receive, and when they connect to their broker and part from it, too.
    """

    broker: str
    limiter: str | None = None
    rate: str | int | None = None
    extension: bool = True
    burst: int | None = None
    conf: dict[str, Any] = field(default_factory=dict)
    loglevel: str = "WARNING"
    lifelines: bool = False

    def __post_init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="global-rate-run-"))
        records = self.directory / "records"
        records.mkdir()
        conf = {"broker_heartbeat": 0, **self._transport(), **self.conf}
        if self.limiter and self.extension:
            conf["global_rate_url"] = self.limiter
        self.setup: dict[str, Any] = {
            "broker": self.broker,
            "records": str(records),
            "rate": self.rate,
            "burst": self.burst,
            "extension": self.extension,
            "lifelines": self.lifelines,
            "conf": conf,
        }
        self.environment = {
            **os.environ,
            "GLOBAL_RATE_SETUP": json.dumps(self.setup),
            "PYTHONPATH": str(root()),
            "TMPDIR": str(self.directory),  # killed workers leave temporary files behind
        }
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        #: Those whose end is meant, whatever they return.
        self.ended: set[str] = set()
        self._tail = Tail(records)
        self._records: defaultdict[str, list[Record]] = defaultdict(list)
        self.app = self._client()

    def _client(self) -> Celery:
        app = Celery("lab", broker=self.broker)
        app.conf.update(
            task_ignore_result=True, broker_connection_retry_on_startup=True, **self._transport(), **self.conf
        )
        return app

    def reconnect(self) -> None:
        """Let go of this process' connections to a broker that was restarted, and open others."""
        self.app.close()
        pools.reset()
        self.app = self._client()

    def _transport(self) -> dict[str, Any]:
        """What a broker made of files needs: folders of this run."""
        if not self.broker.startswith("filesystem:"):
            return {}
        folders = {name: str(self.directory / name) for name in ("messages", "processed", "control")}
        for folder in folders.values():
            Path(folder).mkdir(exist_ok=True)
        messages, processed, control = folders.values()
        options = {"data_folder_in": messages, "data_folder_out": messages}
        return {"broker_transport_options": {**options, "processed_folder": processed, "control_folder": control}}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self.workers.values():
            self._kill(worker)
        self.app.close()
        pools.reset()  # a connection remembers which queues it has declared, and the next run has none
        shutil.rmtree(self.directory, ignore_errors=True)

    # workers

    def start(self, count: int = 1, **options: Any) -> list[str]:
        """Start workers, as `launch` does, and return their names once all of them take tasks and hear commands.

        On a Redis broker a worker subscribes to commands just after it is ready. One that is sent between is lost.
        One in a file is not asked for: kombu's transport may read it before it is written, and end the worker.
        """
        names = [self.launch(**options) for _ in range(count)]
        self.wait(lambda: self.ready >= set(names), 60, f"workers {names} did not start")
        hears = {**self.conf, **options.get("conf", {})}.get("worker_enable_remote_control", True)
        if hears and not self.broker.startswith("filesystem:"):
            self.wait(lambda: self._answering(names) >= set(names), 60, f"workers {names} do not answer")
        return names

    def _answering(self, names: Sequence[str]) -> set[str]:
        """Which of these workers answer a ping."""
        to = [f"{name}@lab" for name in names]
        replies = self.app.control.ping(to, timeout=1, limit=len(to)) or []
        return {name.partition("@")[0] for reply in replies for name in reply}

    def launch(
        self,
        pool: str = "prefork",
        concurrency: int = 2,
        options: Sequence[str] = (),
        extension: bool | None = None,
        conf: Mapping[str, Any] | None = None,
        broker: str | None = None,
    ) -> str:
        """Begin to start a worker, and return its name.

        `extension`, `conf` and `broker` make it differ from the others.
        """
        setup = {**self.setup, "conf": {**self.setup["conf"], **(conf or {})}}
        if extension is not None:
            setup["extension"] = extension
        if broker is not None:
            setup["broker"] = broker
        name = f"w{len(self.workers)}"
        command = [sys.executable, "-m", "celery", "-A", "testbed.app", "worker", "-n", f"{name}@lab"]
        command += ["-P", pool, "-c", str(concurrency), "-l", self.loglevel, "--without-gossip", "--without-mingle"]
        with open(self.directory / f"{name}.log", "ab") as log:
            self.workers[name] = subprocess.Popen(
                [*command, *options],
                cwd=root(),
                env={**self.environment, "GLOBAL_RATE_SETUP": json.dumps(setup), "GLOBAL_RATE_WORKER": name},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return name

    @property
    def ready(self) -> set[str]:
        """The workers that have begun to take tasks."""
        return {record.worker for record in self.records("ready")}

    def log(self, name: str) -> str:
        """What a worker has printed."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def stop(self, name: str, timeout: float = 60) -> int:
        """Warm shutdown: TERM, and wait. A process of billiard may wait 30 s for its last result to be read."""
        self.workers[name].terminate()
        return self.workers[name].wait(timeout)

    def kill(self, name: str) -> None:
        """KILL a worker with all its processes, as an OOM killer or a lost machine does."""
        self._kill(self.workers[name])

    def signal(self, name: str, signum: signal.Signals) -> None:
        """Send a signal to a worker and its processes."""
        os.killpg(self.workers[name].pid, signum)

    @staticmethod
    def _kill(worker: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

    def sweeping(self, every_s: float = 2.0) -> contextlib.AbstractContextManager[None]:
        """Let a Redis broker deliver again what was taken too long ago, as each worker does every hundred seconds."""

        def sweep() -> None:
            with (
                contextlib.suppress(OSError, KombuError, RedisError),  # it may be away
                self.app.connection_for_read() as connection,
                connection.channel() as channel,
            ):
                channel.qos.restore_visible(num=None, interval=1)

        return meanwhile(sweep, every_s)

    # load and records

    def send(self, task: str, count: int = 1, args: Sequence[Any] = (), **options: Any) -> list[str]:
        """Send messages and return the ids of their tasks."""
        with self.app.producer_or_acquire() as producer:
            return [self.app.send_task(task, args, producer=producer, **options).id for _ in range(count)]

    def records(self, kind: str, task: str | None = None) -> list[Record]:
        """All records of a kind so far, in order."""
        for record in self._tail.lines():
            self._records[record.kind].append(record)
        self._records[kind].sort()
        return [record for record in self._records[kind] if task in (None, record.task)]

    def instants(self, kind: str, task: str = "limited") -> list[float]:
        """The instants of all records of a kind, monotonic seconds, sorted."""
        return [record.instant for record in self.records(kind, task)]

    def wait(self, condition: Callable[[], bool], timeout: float, failure: str = "it did not happen") -> None:
        """Poll a condition until a deadline."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                logs = "".join(f"\n--- {name}\n{self.log(name)[-3000:]}" for name in self.workers)
                raise TimeoutError(f"{failure} within {timeout} s{logs}")
            for name, worker in self.workers.items():
                if name not in self.ended and worker.poll() not in (None, 0, -signal.SIGKILL):
                    raise RuntimeError(f"worker {name} ended with {worker.returncode}:\n{self.log(name)[-3000:]}")
            time.sleep(0.02)

    def wait_for(self, count: int, timeout: float, kind: str = "start", task: str = "limited") -> None:
        """Wait until so many tasks have started (or another kind of record has come)."""
        self.wait(lambda: len(self.records(kind, task)) >= count, timeout, f"{count} {kind}s of {task}")

    def pool_delay_s(self, task: str | None = "free") -> float:
        """J: the longest that a task without a limit took from its hand-over to its first line, in seconds.

        `task` None measures it on all tasks: if the pool changes, only few meet a newly forked process.
        """
        handed = {record.task_id: record.instant for record in self.records("release", task)}
        starts = (record for record in self.records("start", task) if record.task_id in handed)
        return max((record.instant - handed[record.task_id] for record in starts), default=0.0)

    @property
    def running(self) -> int:
        """How many workers run."""
        return sum(worker.poll() is None for worker in self.workers.values())

    def set_rate(self, rate: str, task: str = "limited") -> None:
        """Set the rate of a task (`celery control rate_limit`), on each worker that runs: all of them say so."""
        running = self.running
        replies = self.app.control.rate_limit(task, rate, reply=True, timeout=5, limit=running) or []
        answers = [answer for reply in replies for answer in reply.values()]
        assert ["ok" in answer for answer in answers] == [True] * running, answers

    def stats(self) -> dict[str, dict[str, Any]]:
        """What each worker says of its limiter (`celery inspect stats`)."""
        replies = self.app.control.inspect(timeout=2, limit=self.running).stats() or {}
        return {name.partition("@")[0]: reply.get("global_rate", {}) for name, reply in replies.items()}

    def shares(self, task: str = "limited") -> list[int]:
        """Starts of each worker."""
        return list(Counter(record.worker for record in self.records("start", task)).values())
