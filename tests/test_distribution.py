"""What is built and what it installs: the sdist, the wheel from it, and that wheel where nothing of the checkout is.

DIST names a folder with both, built before: `make test T=tests/test_distribution.py DIST=dist`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from testbed.server import root

from .conftest import Figures, Server

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path | None = None, **environment: str) -> str:
    """Run a command to its end, which must be good, and return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def is_left_behind(name: str) -> bool:
    """Whether tools have made it: building would take the list of files from an `egg-info` that is there already."""
    return name in {".environments", ".git", ".tox", ".venv", "build", "dist"} or name.endswith(".egg-info")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout that nothing was built in."""
    pytest.importorskip("build")
    source = tmp_path_factory.mktemp("source") / "copy"

    def ignored(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if Path(folder) == root() and is_left_behind(name)]

    shutil.copytree(root(), source, ignore=ignored)
    return source


@pytest.fixture(scope="module")
def dist(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and the wheel that was built from it."""
    if "DIST" in os.environ:
        return Path(os.environ["DIST"]).resolve()
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, request.getfixturevalue("source"))
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel; those about the package under their last name."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return {Path(name).name if ".dist-info/" in name else name: content for name, content in files.items()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """All files of the package, the Lua scripts and `py.typed` too, and the command for Celery."""
    package = root() / "celery_global_rate"
    sources = [path for suffix in ("py", "lua", "typed") for path in package.rglob(f"*.{suffix}")]
    about = {"LICENSE", "METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt"}
    found = contents(wheel)

    assert found.keys() == {str(path.relative_to(root())) for path in sources} | about
    assert (
        found["entry_points.txt"].strip() == b"[celery.commands]\nglobal-rate = celery_global_rate.cli.main:global_rate"
    )


def test_the_wheel_from_the_sdist_is_that_from_the_checkout(wheel: Path, source: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, source)
    (other,) = tmp_path.glob("*.whl")
    found, expected = contents(wheel), contents(other)
    for by_version_of_setuptools in ("METADATA", "RECORD", "WHEEL"):
        assert found.pop(by_version_of_setuptools)
        assert expected.pop(by_version_of_setuptools)

    assert wheel.name == other.name
    assert found == expected


def test_the_sdist_has_what_tests_and_documentation_need(dist: Path) -> None:
    """All that is tracked but what is for hosts of repositories, and nothing that git does not know or ignores."""
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    made = {name for name in names if name == "PKG-INFO" or ".egg-info/" in name}

    assert {"Makefile", "tox.ini", "tests/storage/mutate.py", "integration/Dockerfile", "docs/conf.py"} <= names
    if (root() / ".git").exists():
        tracked = set(run("git", "ls-files", cwd=root()).split())
        new = set(run("git", "ls-files", "--others", "--exclude-standard", cwd=root()).split())
        assert {name.partition("/")[0] for name in tracked - names} <= {".ci", ".github", ".gitignore"}
        assert names - made <= tracked | new


def test_the_metadata_is_what_an_index_takes(dist: Path) -> None:
    pytest.importorskip("twine")
    text = run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())

    assert text.count("PASSED") == 2


def test_the_least_that_is_installed_is_celery_kombu_and_redis(wheel: Path) -> None:
    """And `packaging`, which kombu imports for a Redis broker without saying so. All else is an extra."""
    metadata = message_from_string(contents(wheel)["METADATA"].decode())
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    unconditional = {requirement.name for requirement in required if "extra ==" not in str(requirement.marker)}

    assert unconditional == {"celery", "kombu", "redis", "packaging"}


@pytest.mark.long
def test_the_wheel_in_a_clean_environment(wheel: Path, tmp_path: Path, empty_redis: Server, figures: Figures) -> None:
    """Two workers run on the wheel alone, switched on by their environment; with the extra `cli` the demo does too.

    Demo and workers are copies, and everything runs outside the checkout: what is imported can only be the wheel.
    """
    run(sys.executable, "-m", "venv", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", wheel)
    installed = run(python, "-m", "pip", "list", "--format=freeze", cwd=tmp_path).split()
    imported = run(python, "-c", "import celery_global_rate; print(celery_global_rate.__file__)", cwd=tmp_path)
    assert str(tmp_path / "env") in imported
    assert "--global-rate-url" in run(python, "-m", "celery", "worker", "--help", cwd=tmp_path)

    for folder in ("benchmarks", "examples", "testbed"):
        shutil.copytree(root() / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    workers = run(python, "-m", "benchmarks.two_workers", cwd=tmp_path, REDIS_URL=empty_redis.url)
    run(python, "-m", "pip", "install", "-q", f"{wheel}[cli]")
    demo = run(python, "-m", "examples.demo", cwd=tmp_path, REDIS_URL=empty_redis.url)
    table = demo[demo.rindex("\n", 0, demo.index("busiest")) :].rstrip()
    figures(f"installed: {', '.join(installed)}\n{workers}{table}")

    assert str(tmp_path / "env") in workers.splitlines()[0]
    assert "On in all workers that have answered (2)" in workers
