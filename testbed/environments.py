"""Python environments with other packages than this one's."""

from __future__ import annotations

import subprocess
import venv
from importlib.metadata import version
from pathlib import Path


def environment(folder: Path, requirement: str) -> str:
    """The Python of an environment with a package, and with the Celery and redis-py that are installed here.

    Args:
        folder: where it is, or is made. One that was made for something else is made anew.
        requirement: the package, with its version.

    Raises:
        RuntimeError: it cannot be installed.
    """
    python, made_for = str(folder / "bin" / "python"), folder / "requirements"
    packages = [f"celery=={version('celery')}", f"redis=={version('redis')}", "packaging", requirement]
    if made_for.exists() and made_for.read_text().split() == packages:
        return python
    venv.create(folder, with_pip=True, clear=True)
    install = [python, "-m", "pip", "install", "-q", *packages]
    done = subprocess.run(install, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"{requirement} cannot be installed: {done.stderr.strip()[-300:]}")
    made_for.write_text("\n".join(packages))
    return python
