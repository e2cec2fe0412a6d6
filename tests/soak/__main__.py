"""`make soak`: workers under a mix of all kinds of tasks for a long time, and a report.

It ends with 1 if something was stuck or lost, a rate was not kept, or memory or file descriptors were not flat.
"""

from __future__ import annotations

import random
import signal
import sys

import click
from rich.console import Console

from .report import starts, table
from .run import BROKERS, run


@click.command()
@click.option("--seconds", type=click.FloatRange(30), default=3600, show_default=True, help="How long.")
@click.option("--seed", type=int, default=None, help="Of what happens, and of its order.")
@click.option("--stock", is_flag=True, help="Stock Celery and its own limits, to compare the footprints.")
@click.option("--broker", type=click.Choice([*BROKERS]), default="redis", show_default=True, help="Of the workers.")
def main(seconds: float, seed: int | None, stock: bool, broker: str) -> None:
    """Workers of three pools, and a fourth one that is ended repeatedly."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # servers and workers end with us
    seed = random.randrange(10_000) if seed is None else seed
    click.echo(f"seed {seed}, {seconds:.0f} s, {broker}")
    report = run(seed, seconds, click.echo, not stock, broker_kind=broker)
    Console().print(starts(report))
    Console().print(table(report))
    click.echo(report)
    sys.exit(0 if report.is_kept else 1)


if __name__ == "__main__":
    main()
