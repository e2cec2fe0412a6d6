"""A rolling upgrade: workers of the version before and of this one on one bucket."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import docker
import pytest

from celery_global_rate import __version__
from testbed.server import root

from .conftest import ON_REDIS, Figures
from .fleet import Fleet
from .trial import Trial

#: The version before, and its commit, until there is a release to install.
PREVIOUS_VERSION, PREVIOUS = "0.2.0", "20b6650"


@pytest.fixture(scope="session")
def previous_image(docker_client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of an image with the version before, by the same Dockerfile from the sources of then."""
    sources = tmp_path_factory.mktemp("previous")
    archive = subprocess.run(["git", "archive", PREVIOUS], cwd=root(), capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"commit {PREVIOUS} is not here: git fetch --unshallow")
    subprocess.run(["tar", "-x", "-C", str(sources)], input=archive.stdout, check=True)
    shutil.copy(Path(__file__).with_name("Dockerfile"), sources / "Dockerfile")
    image, _ = docker_client.images.build(
        path=str(sources), target="worker", tag="celery-global-rate/worker:previous", rm=True
    )
    return str(image.id)


@ON_REDIS
def test_a_rolling_upgrade(trial: Trial, fleet: Fleet, figures: Figures, previous_image: str) -> None:
    """Three workers of the version before are replaced one by one under load: the promise holds in every window.

    A worker that ends gives back what it had reserved and what it held. No window of the whole run holds more than
    the promise. 0.95 of the slots are used meanwhile, although two cores start three workers. All tasks run once.
    """
    old = fleet.start(3, image=previous_image)
    versions = [{stats.get("version") for stats in fleet.stats().values()}]
    code, text = fleet.outside("celery", "-A", "app", "global-rate", "check")
    assert code == 1
    assert text.count("another version") == 3
    with trial.load():
        before = trial.watch(3)
        begin = trial.starts.now()
        for worker in old:
            fleet.start(1)
            versions.append({stats.get("version") for stats in fleet.stats().values()})
            fleet.retire(worker)
        during = trial.judge(begin, trial.starts.now())
        after = trial.watch(4)
    versions.append({stats.get("version") for stats in fleet.stats().values()})
    code, text = fleet.outside("celery", "-A", "app", "global-rate", "check")
    lost, doubled = trial.rest()
    figures(f"before {before}; during {during}; after {after}; {lost} lost and {doubled} twice of {len(trial.sent)}")

    assert versions[0] == {PREVIOUS_VERSION}
    assert versions[1] == versions[2] == versions[3] == {PREVIOUS_VERSION, __version__}
    assert versions[4] == {__version__}
    assert code == 0, text
    assert after.excess <= 0
    assert during.used >= 0.95
    assert 0.98 <= after.used <= 1.01
    assert len(after.shares) == 3
    assert doubled == 0
