"""The same load on stock Celery, on what its users write and install, and here: JSON, tables and charts.

python -m benchmarks.peers             all of it, about 20 minutes
python -m benchmarks.peers ours stock  some of it, and nothing is written
python -m benchmarks.peers --limiters  libraries in processes without Celery only, about seven minutes
python -m benchmarks.peers --draw      nothing is measured: tables and charts again from benchmarks/*.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from testbed.server import root

from ..__main__ import machine
from .calls import run_all
from .environments import PEERS
from .figures import draw, draw_limiters
from .run import run

REPORT = root() / "benchmarks" / "peers.json"
LIMITERS_REPORT = root() / "benchmarks" / "limiters.json"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice([peer.app for peer in PEERS]))
@click.option("--limiters", "is_short", is_flag=True, help="Only libraries without Celery.")
@click.option("--draw", "is_drawn", is_flag=True, help="Draw the last reports again.")
def main(names: tuple[str, ...], is_short: bool, is_drawn: bool) -> None:
    """Measure, or draw what was measured."""
    if not is_drawn:
        found = []
        for peer in () if is_short else PEERS:
            if not names or peer.app in names:
                figures = run(peer).as_dict()
                click.echo(json.dumps(figures))
                found.append(figures)
        if names:
            return
        if not is_short:
            write(REPORT, "peers", found)
        write(LIMITERS_REPORT, "limiters", run_all())
    draw(json.loads(REPORT.read_text()))
    draw_limiters(json.loads(LIMITERS_REPORT.read_text()))


def write(path: Path, name: str, found: list[dict[str, Any]]) -> None:
    """Keep what was measured, and on what."""
    path.write_text(json.dumps({"machine": machine(), name: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
