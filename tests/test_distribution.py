"""What is built and what it installs: the sdist, the wheel from it, and that wheel where nothing of the checkout is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from benchmarks.server import root

from .conftest import Figures

pytestmark = pytest.mark.slow

#: What celery, kombu and redis-py bring on some Python, and pip itself.
BROUGHT = {
    *("celery", "kombu", "redis", "packaging", "amqp", "vine", "billiard", "tzdata", "tzlocal", "exceptiongroup"),
    *("click", "click-didyoumean", "click-plugins", "click-repl", "prompt-toolkit", "wcwidth"),
    *(
        "python-dateutil",
        "six",
        "async-timeout",
        "pip",
        "setuptools",
        "typing-extensions",
        "importlib-metadata",
        "zipp",
    ),
}


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


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and the wheel that was built from it; DIST names one that was built before."""
    if "DIST" in os.environ:
        return Path(os.environ["DIST"])
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, root())
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """All files of the package, the Lua scripts and `py.typed` too. The sdist has them as well: it is built from it."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        entry_points = archive.read(points).decode()
        licensed = [name for name in archive.namelist() if name.endswith("LICENSE")]
    package = root() / "celery_global_rate"
    sources = {
        str(path.relative_to(root())) for suffix in ("py", "lua", "typed") for path in package.rglob(f"*.{suffix}")
    }

    assert names == sources
    assert "[celery.commands]\nglobal-rate = celery_global_rate.cli:global_rate" in entry_points
    assert len(licensed) == 1


def test_the_sdist_has_what_tests_and_documentation_need(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = run("git", "ls-files", cwd=root()).split() if (root() / ".git").exists() else []
    left_out = {name for name in tracked if name not in names}

    assert {"Makefile", "tox.ini", "tests/mutate.py", "integration/Dockerfile", "docs/conf.py"} <= names
    assert {name.partition("/")[0] for name in left_out} <= {".ci", ".github", ".gitignore"}
    assert not [name for name in names if name.endswith((".pyc", "__pycache__")) or name.startswith("docs/_build")]


def test_the_metadata_is_what_an_index_takes(dist: Path) -> None:
    pytest.importorskip("twine")
    text = run(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())

    assert text.count("PASSED") == 2


def test_the_wheel_in_a_clean_environment(wheel: Path, tmp_path: Path, figures: Figures) -> None:
    """The wheel alone brings Celery, kombu and redis-py; with what the demo needs besides, demo and workers run.

    The demo and the two workers are copies outside the checkout: what they import can only be the wheel.
    """
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", wheel)
    installed = {line.partition("==")[0].lower() for line in run(python, "-m", "pip", "freeze", "--all").splitlines()}
    assert {name.replace("_", "-") for name in installed if "@" not in name} - {"celery-global-rate"} <= BROUGHT
    assert "--global-rate-url" in run(python, "-m", "celery", "worker", "--help")

    run(python, "-m", "pip", "install", "-q", f"{wheel}[cli,embedded]")
    for folder in ("benchmarks", "examples"):
        shutil.copytree(root() / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    workers = run(python, "-m", "benchmarks.two_workers", cwd=tmp_path)
    demo = run(python, "-m", "examples.demo", cwd=tmp_path)
    figures(f"two workers: {workers}the demo ends with: {demo.rstrip().splitlines()[-1]}")

    assert str(tmp_path / "env") in workers.splitlines()[0]
    assert "On in all workers that have answered (2)" in workers
