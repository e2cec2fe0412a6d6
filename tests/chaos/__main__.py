"""`make chaos`: random faults for minutes, from a seed that lets them happen again, and a report.

It ends with 1 if a promise was not kept.
"""

from __future__ import annotations

import random
import signal
import sys

import click
from rich.console import Console

from .load import LOADS
from .report import recovery, windows
from .run import run


@click.command()
@click.option("--seed", type=int, default=None, help="Lets the faults of another run happen again.")
@click.option("--seconds", type=click.FloatRange(10), default=300, show_default=True, help="How long.")
@click.option("--workers", type=click.IntRange(2), default=4, show_default=True, help="At a time.")
@click.option("--policy", type=click.Choice(["share", "hold"]), default="hold", show_default=True, help="In outages.")
@click.option("--load", type=click.Choice([*LOADS]), default="task", show_default=True, help="What has limits.")
def main(seed: int | None, seconds: float, workers: int, policy: str, load: str) -> None:
    """Workers, a Redis with replica and Sentinel for their limits, and what goes wrong with all of them."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # servers and workers end with us
    seed = random.randrange(10_000) if seed is None else seed
    click.echo(f"seed {seed}, {workers} workers, {seconds:.0f} s, outages: {policy}, load: {load}")
    report = run(seed, workers, seconds, policy, click.echo, load)
    Console().print(windows(report), recovery(report))
    click.echo(report)
    sys.exit(0 if report.is_kept else 1)


if __name__ == "__main__":
    main()
