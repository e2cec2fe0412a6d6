"""The shortest proof that an installation works: two workers, one limit, five seconds, and `check`.

python -m benchmarks.two_workers    exit 0 if the slots were used, the promise was kept, and `check` agrees

The application has a rate and nothing else; the environment of the workers switches the extension on.
"""

from __future__ import annotations

import subprocess
import sys

import celery_global_rate
from testbed.cluster import Cluster
from testbed.scenarios import backlog
from testbed.server import any_redis


def main() -> int:
    """Run it, print what was seen, and return the exit code."""
    print(f"celery-global-rate {celery_global_rate.__version__} from {celery_global_rate.__path__[0]}")
    with any_redis() as server, Cluster(f"{server.url}/0", rate="20/s", extension=False) as cluster:
        cluster.environment["CELERY_WORKER_GLOBAL_RATE_URL"] = f"{server.url}/1"
        run = backlog(cluster, server.client(), 2, 5)
        command = [sys.executable, "-m", "celery", "-A", "testbed.app", "global-rate", "check"]
        check = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=False)
    print(run)
    print(check.stdout + check.stderr)
    return 0 if run.kept and 0.99 <= run.used <= 1.01 and check.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
