"""Results and schedule in the database of a Django project."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("django_celery_results", reason="make packages installs it")
pytest.importorskip("django_celery_beat", reason="make packages installs it")

from testbed.cluster import Cluster
from testbed.server import root

from ..conftest import Figures, Server
from .beat import beating
from .load import judge, send_both

PACKAGES = ("django-celery-results", "django-celery-beat", "Django")


@contextlib.contextmanager
def project(server: Server, rate: str) -> Iterator[tuple[Cluster, sqlite3.Connection]]:
    """Workers of a Django project, and its database."""
    conf = {"beat_max_loop_interval": 0.05}
    with Cluster(f"{server.url}/0", f"{server.url}/1", rate, conf=conf, lifelines=True) as cluster:
        file = cluster.directory / "site.sqlite"
        cluster.environment.update(DJANGO_SETTINGS_MODULE="tests.packages.apps.site", SITE_DATABASE=str(file))
        run(cluster, "django", "migrate", "-v", "0")
        with contextlib.closing(sqlite3.connect(file)) as database:
            yield cluster, database


def run(cluster: Cluster, *words: str) -> None:
    """Run a module of Python in the project."""
    subprocess.run([sys.executable, "-m", *words], cwd=root(), env=cluster.environment, check=True, timeout=60)


def rows(database: sqlite3.Connection, query: str) -> dict[str, Any]:
    return dict(database.execute(query).fetchall())


def test_results_are_kept_in_the_database(empty_redis: Server, figures: Figures) -> None:
    """30 tasks succeed, 30 fail, and 5 are revoked while they are held, at 20/s: so many rows say it."""
    options = ("-I", "tests.packages.apps.kept")
    query = "select status, count(*) from django_celery_results_taskresult group by status"
    with project(empty_redis, "20/s") as (cluster, database):
        cluster.start(2, options=options, conf={"result_backend": "django-db", "result_extended": True})
        ids = send_both(cluster, 30) + cluster.send("limited", 5)
        cluster.app.control.revoke(ids[-5:])
        cluster.wait_for(60, 20)
        cluster.wait(lambda: sum(rows(database, query).values()) >= 65, 10, "65 results")
        figures(judge(cluster, 20, *(cluster.instants("start")[place] for place in (4, -2))))
        states = rows(database, query)
        failed = rows(
            database, "select result, count(*) from django_celery_results_taskresult where status = 'FAILURE'"
        )

    assert states == {"SUCCESS": 30, "FAILURE": 30, "REVOKED": 5}
    ((result, _),) = failed.items()
    assert "boom" in result


def test_entries_of_the_schedule_fire_at_a_limited_rate(empty_redis: Server, figures: Figures) -> None:
    """Two entries that are due ten times a second, one of which fails, and a limit of 5/s: both start, at 5/s."""
    with project(empty_redis, "5/s") as (cluster, database):
        cluster.start(2)
        run(cluster, "tests.packages.apps.schedule")
        with beating(cluster, "django_celery_beat.schedulers:DatabaseScheduler"):
            cluster.wait_for(25, 30)
        figures(judge(cluster, 5, *(cluster.instants("start")[place] for place in (4, 24))))
        received = len(cluster.records("received", "limited"))
        fired = rows(database, "select name, total_run_count from django_celery_beat_periodictask")
        log = cluster.log("w0") + cluster.log("w1")

    assert received > 25
    assert {name for name, count in fired.items() if count > 5} >= {"good", "bad"}
    assert "RuntimeError: boom" in log
