"""A scheduler of `celery beat` in its own process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from testbed.cluster import Cluster
from testbed.server import root


@contextlib.contextmanager
def beating(cluster: Cluster, scheduler: str) -> Iterator[None]:
    """Run `celery beat` with the application of a cluster, and see that it goes well."""
    command = [sys.executable, "-m", "celery", "-A", "testbed.app", "beat", "-S", scheduler]
    file = cluster.directory / "beat.log"
    with open(file, "wb") as log:
        process = subprocess.Popen(command, cwd=root(), env=cluster.environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        is_alive = process.poll() is None
        process.terminate()
        process.wait(10)
        text = file.read_text(errors="replace")
        assert is_alive, text
        assert "Traceback" not in text, text
