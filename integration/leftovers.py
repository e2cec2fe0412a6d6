"""Containers, networks and volumes of a run, by their labels.

python -m integration.leftovers    removes those of runs that were killed before they could

Every run labels what it makes with the id of its process, so nothing of anybody else is touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import docker

RUN = str(os.getpid())
LABEL = "celery-global-rate.run"
LABELS = {LABEL: RUN}
#: Docker Compose labels what it makes with the name of its project.
COMPOSE_LABEL = "com.docker.compose.project"
PROJECT = "celery-global-rate-run-"


def _things(client: docker.DockerClient, label: str) -> Iterator[Any]:
    """All that has a label, in an order in which it can be removed."""
    filters = {"label": label}
    for network in client.networks.list(filters=filters):
        yield from client.containers.list(all=True, filters={"network": network.id})
    yield from client.containers.list(all=True, filters=filters)
    yield from client.networks.list(filters=filters)
    yield from client.volumes.list(filters=filters)


def remove(client: docker.DockerClient, run: str) -> list[str]:
    """Remove all that one run has made, and return the names."""
    removed = []
    for label in (f"{LABEL}={run}", f"{COMPOSE_LABEL}={PROJECT}{run}"):
        for thing in {thing.id: thing for thing in _things(client, label)}.values():
            thing.remove(**({"v": True, "force": True} if hasattr(thing, "exec_run") else {}))
            removed.append(str(thing.name))
    return removed


def dead_runs(client: docker.DockerClient) -> set[str]:
    """Runs that have left something behind and whose process is gone."""
    labels = [_labels(thing) for label in (LABEL, COMPOSE_LABEL) for thing in _things(client, label)]
    runs = {each.get(LABEL) or _run_of(each.get(COMPOSE_LABEL, "")) for each in labels} - {""}
    return {run for run in runs if not _lives(int(run))}


def _labels(thing: Any) -> dict[str, str]:
    return thing.attrs.get("Labels") or thing.attrs.get("Config", {}).get("Labels") or {}


def _run_of(project: str) -> str:
    return project[len(PROJECT) :] if project.startswith(PROJECT) else ""


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    daemon = docker.from_env()
    for dead in dead_runs(daemon):
        print(f"run {dead}: removed {', '.join(remove(daemon, dead)) or 'nothing'}")
