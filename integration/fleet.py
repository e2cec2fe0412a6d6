"""Workers in containers: start them, ask them, hurt them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from celery import Celery
from docker import DockerClient
from docker.models.containers import Container
from docker.models.networks import Network
from pytest_celery import CeleryTestWorker, CeleryWorkerContainer

from testbed.meanwhile import wait

#: Celery logs this once it takes tasks.
READY = " ready."


class WorkerContainer(CeleryWorkerContainer):
    """A worker's container, with the tasks of this suite."""

    @classmethod
    def tasks_modules(cls) -> set[Any]:
        from integration import tasks

        return {tasks}


def is_ready(worker: CeleryTestWorker) -> bool:
    """Whether it takes tasks."""
    return READY in worker.logs()


def last_logs(worker: CeleryTestWorker) -> str:
    """The end of its log, for the error of one that does not become ready."""
    return worker.logs()[-3000:]


@dataclass
class Fleet:
    """Containers that share an application, a broker and a network.

    Args:
        docker: the daemon.
        image: the worker's image, by its id.
        network: that of broker and Redis.
        volume: name of the volume with the application.
        environment: of every container.
        labels: of every container, by which it is found again.
        app: the application, configured to reach the same broker from here.
    """

    docker: DockerClient
    image: str
    network: Network
    volume: str
    environment: dict[str, str]
    labels: dict[str, str]
    app: Celery
    workers: list[CeleryTestWorker] = field(default_factory=list)
    _containers: list[Container] = field(default_factory=list)

    def start(
        self,
        count: int,
        *options: str,
        is_on: bool = True,
        image: str | None = None,
        **container: Any,
    ) -> list[CeleryTestWorker]:
        """Start workers and return them once all take tasks.

        Args:
            count: how many.
            options: of `celery worker`; two prefork processes if they name no concurrency.
            is_on: whether the extension is switched on, by its environment variable and nothing else.
            image: of another version of the package.
            container: more options for Docker.

        Raises:
            TimeoutError: one is not ready; its log is in the text.
        """
        command = WorkerContainer.command("--concurrency=2", *options)
        switch = {"CELERY_WORKER_GLOBAL_RATE": "1"} if is_on else {}
        started = [self._run(command, image or self.image, switch, **container) for _ in range(count)]
        workers = [CeleryTestWorker(WorkerContainer(container), self.app) for container in started]
        self.workers += workers
        for worker in workers:
            wait(partial(is_ready, worker), 60, partial(last_logs, worker))
        return workers

    def outside(self, *command: str) -> tuple[int, str]:
        """Run a command in a container that is no worker; returns its exit code and what it prints."""
        container = self._run(list(command), self.image, {})
        return container.wait(timeout=60)["StatusCode"], container.logs().decode()

    def end(self) -> None:
        """Remove all containers."""
        for container in self._containers:
            container.remove(force=True)

    def _run(self, command: list[str], image: str, environment: dict[str, str], **options: Any) -> Container:
        container = self.docker.containers.run(
            image,
            command,
            detach=True,
            environment={**self.environment, **environment},
            network=self.network.name,
            volumes={self.volume: {"bind": "/app", "mode": "rw"}},
            labels=self.labels,
            **options,
        )
        self._containers.append(container)
        return container

    def send(self, task: str, count: int = 1, **options: Any) -> list[str]:
        """Send messages and return the ids of their tasks."""
        with self.app.producer_or_acquire() as producer:
            return [self.app.send_task(task, producer=producer, **options).id for _ in range(count)]

    def stats(self) -> dict[str, dict[str, Any]]:
        """What each worker that answers says of its limiter (`celery inspect stats`), by the worker's name."""
        with self.app.connection_for_write() as connection:  # not one of before the broker was restarted
            inspect = self.app.control.inspect(timeout=2, limit=len(self.workers), connection=connection)
            replies = inspect.stats() or {}
        return {name: reply.get("global_rate", {}) for name, reply in replies.items()}

    def kill(self, worker: CeleryTestWorker) -> None:
        """End a container at once, as a machine that is lost."""
        self.workers.remove(worker)
        self.container(worker).kill()

    def retire(self, worker: CeleryTestWorker) -> None:
        """End a worker warmly, as a deploy does: TERM, and a minute."""
        self.workers.remove(worker)
        self.container(worker).stop(timeout=60)

    def cut(self, worker: CeleryTestWorker) -> None:
        """Take a worker off the network, as a switch that fails does: nobody is notified."""
        self.network.disconnect(worker.container.id)

    def join(self, worker: CeleryTestWorker) -> None:
        """Put a worker back on the network."""
        self.network.connect(worker.container.id)

    def container(self, worker: CeleryTestWorker) -> Container:
        """Docker's own view of a worker, which can pause and stop it."""
        return self.docker.containers.get(worker.container.id)

    def logs(self) -> str:
        """The end of every worker's log."""
        return "".join(f"\n--- {worker.hostname()}\n{worker.logs()[-20000:]}" for worker in self.workers)


def names(workers: Iterable[CeleryTestWorker]) -> set[str]:
    """What Celery calls these workers."""
    return {worker.hostname() for worker in workers}
