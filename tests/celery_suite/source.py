"""Celery's own tests of the version that is installed, from its source distribution."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import celery

from testbed.server import root

#: Where they are kept, once they were fetched.
CACHE = root() / ".venv" / "celery-suite"


class NoSourceError(Exception):
    """There is nothing to run."""


def fetch(cache: Path = CACHE) -> Path:
    """Fetch and unpack the tests of the Celery that is installed, unless that has been done.

    Returns:
        The folder that has `t/`. Celery itself is not in it, so the tests import the one that is installed.

    Raises:
        NoSourceError: the index has no source of this version, or its tests know one fixed port only.
    """
    folder = cache / f"celery-{celery.__version__}"
    if not (folder / "t" / "integration").exists():
        cache.mkdir(parents=True, exist_ok=True)
        options = ["-q", "--disable-pip-version-check", "--no-deps", "--no-binary", "celery", "-d", str(cache)]
        download = [sys.executable, "-m", "pip", "download", *options, f"celery=={celery.__version__}"]
        if subprocess.run(download, stdout=subprocess.DEVNULL).returncode:
            raise NoSourceError(f"the package index does not give out the source of Celery {celery.__version__}")
        _unpack(next(cache.glob(f"celery-{celery.__version__}.tar.*")), folder)
    texts = [(folder / "t" / "integration" / name).read_text() for name in ("conftest.py", "tasks.py")]
    if not any("REDIS_PORT" in text for text in texts):
        raise NoSourceError(
            f"the tests of Celery {celery.__version__} know a Redis on port 6379 only; from 5.4 on it is said"
        )
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the tests and their settings."""
    rest = folder.with_suffix(".part")
    shutil.rmtree(rest, ignore_errors=True)
    with tarfile.open(archive) as source:
        for member in source.getmembers():
            path = Path(*Path(member.name).parts[1:])
            if (
                member.isfile()
                and ".." not in path.parts
                and (path.parts[:1] == ("t",) or path.name == "pyproject.toml")
            ):
                text = source.extractfile(member)
                assert text is not None
                (rest / path).parent.mkdir(parents=True, exist_ok=True)
                (rest / path).write_bytes(text.read())
    rest.rename(folder)
