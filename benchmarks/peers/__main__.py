"""The same load on stock Celery, on what its users write and install, and here: JSON, a table and a chart.

python -m benchmarks.peers             all of it, about ten minutes
python -m benchmarks.peers ours stock  some of it, and nothing is written
python -m benchmarks.peers --draw      nothing is measured: table and chart again from benchmarks/peers.json
"""

from __future__ import annotations

import json

import click

from testbed.server import root

from ..__main__ import machine
from .environments import PEERS
from .figures import draw
from .run import run

REPORT = root() / "benchmarks" / "peers.json"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice([peer.app for peer in PEERS]))
@click.option("--draw", "is_drawn", is_flag=True, help="Draw the last report again.")
def main(names: tuple[str, ...], is_drawn: bool) -> None:
    """Measure, or draw what was measured."""
    if not is_drawn:
        found = []
        for peer in PEERS:
            if not names or peer.app in names:
                figures = run(peer).as_dict()
                click.echo(json.dumps(figures))
                found.append(figures)
        if names:
            return
        REPORT.write_text(json.dumps({"machine": machine(), "peers": found}, indent=1) + "\n")
    draw(json.loads(REPORT.read_text()))


if __name__ == "__main__":
    main()
