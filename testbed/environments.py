"""Python environments with other packages than this one's."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

from testbed.server import root

#: Those that tests share, by name. Kept between runs, and in no commit.
FOLDER = root() / ".environments"


def environment(folder: Path, *requirements: str) -> str:
    """The Python of an environment with packages, and with the Celery and redis-py that are installed here.

    Args:
        folder: where it is, or is made. One that was made for something else is made anew. Processes that need the
            same one wait for the first of them.
        requirements: the packages, with their versions.

    Raises:
        RuntimeError: they cannot be installed.
    """
    python, made_for = str(folder / "bin" / "python"), folder / "requirements"
    packages = [f"celery=={version('celery')}", f"redis=={version('redis')}", "packaging", *requirements]
    made = "\n".join([sys.version, *packages])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made_for.exists() and made_for.read_text() == made:
            return python
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "-q", *packages]
        done = subprocess.run(install, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise RuntimeError(f"{', '.join(requirements)} cannot be installed: {done.stderr.strip()[-300:]}")
        made_for.write_text(made)
    return python
