"""The options of `celery worker` and the command `celery global-rate`, by way of Celery's entry point for commands."""

from __future__ import annotations

from typing import Any

import click
from celery.bin import control as celery_control
from celery.bin.base import CeleryOption
from celery.bin.worker import worker
from celery.exceptions import ImproperlyConfigured
from celery.worker.control import Panel

from .. import activation
from ..named_buckets import read_named_buckets
from ..worker import control  # noqa: F401  (remote control commands; listens for the worker)
from .check import compare_workers
from .commands import COMMANDS
from .plan import lines

GROUP = "Global Rate Limit Options"

worker.params += [
    CeleryOption(
        ["--global-rate"],
        is_flag=True,
        default=False,
        help_group=GROUP,
        show_envvar=True,
        help="Apply rate limits to the whole cluster instead of to each worker.",
    ),
    CeleryOption(
        ["--global-rate-url"],
        metavar="URL",
        help_group=GROUP,
        show_envvar=True,
        help="The Redis that keeps the limits; implies --global-rate. Default: global_rate_url, "
        "else the broker or the result backend, whichever is a Redis.",
    ),
]

# Celery 5.3 lists its commands when it is imported, which was before ours were registered.
for of_celery in (celery_control.inspect, celery_control.control):
    for parameter in of_celery.params:
        if parameter.name == "action" and isinstance(parameter.type, click.Choice):
            names = [name for name, info in Panel.meta.items() if info.visible and info.type == of_celery.name]
            parameter.type = click.Choice(names)


@click.group(name="global-rate")
def global_rate(**preload_options: Any) -> None:  # of the application, which Celery adds to every command
    """Rate limits for the whole cluster."""


@global_rate.command()
@click.option(
    "-t",
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for workers.",
)
@click.option(
    "--global-rate-url",
    envvar="CELERY_WORKER_GLOBAL_RATE_URL",
    metavar="URL",
    help="Redis URL; needed if the workers were started with this option.",
)
@click.pass_context
def check(ctx: click.Context, timeout: float, global_rate_url: str | None) -> None:
    """Check that every worker has it on, with one Redis and one prefix.

    Exits with 0 if so, else with 1.
    """
    try:
        lines, is_on = compare_workers(ctx.obj.app, global_rate_url, timeout)
    except ImproperlyConfigured as exc:
        raise SystemExit(f"global-rate: {exc}") from None
    click.echo("\n".join(lines))
    ctx.exit(0 if is_on else 1)


@global_rate.command()
@click.pass_context
def plan(ctx: click.Context) -> None:
    """Show which limits each task has to pass, and what cannot be meant. Needs no worker and no Redis."""
    app = ctx.obj.app
    app.loader.import_default_modules()
    try:
        activation.check_rates(app)
        click.echo("\n".join(lines(app, read_named_buckets(app.conf))))
    except ImproperlyConfigured as exc:
        raise SystemExit(f"global-rate: {exc}") from None


for command in COMMANDS:
    global_rate.add_command(command)
