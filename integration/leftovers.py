"""Containers, networks and volumes of a run, by their labels.

python -m integration.leftovers    removes those of runs that were killed before they could

Every run labels what it makes with the id of its process, so nothing of anybody else is touched.
"""

from __future__ import annotations

import os
from typing import Any

import docker

LABEL = "celery-global-rate.run"
LABELS = {LABEL: str(os.getpid())}


def remove(client: docker.DockerClient, run: str) -> list[str]:
    """Remove all that one run has made, and return the names."""
    mine = {"label": f"{LABEL}={run}"}
    removed = []
    for network in client.networks.list(filters=mine, greedy=True):
        containers = client.containers.list(all=True, filters={"network": network.id})
        removed += [_remove(container, v=True, force=True) for container in containers]
        removed.append(_remove(network))
    for container in client.containers.list(all=True, filters=mine):
        removed.append(_remove(container, v=True, force=True))
    removed += [_remove(volume, force=True) for volume in client.volumes.list(filters=mine)]
    return removed


def _remove(thing: Any, **options: bool) -> str:
    thing.remove(**options)
    return str(thing.name)


def dead_runs(client: docker.DockerClient) -> set[str]:
    """Runs that have left something behind and whose process is gone."""
    labelled = [
        *(container.labels for container in client.containers.list(all=True, filters={"label": LABEL})),
        *(network.attrs["Labels"] for network in client.networks.list(filters={"label": LABEL})),
        *(volume.attrs["Labels"] for volume in client.volumes.list(filters={"label": LABEL})),
    ]
    return {run for run in (labels[LABEL] for labels in labelled) if not _lives(int(run))}


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
