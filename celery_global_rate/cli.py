"""The options that `celery worker` gets, by way of Celery's entry point for commands."""

from __future__ import annotations

import click
from celery.bin.base import CeleryOption
from celery.bin.worker import worker

from . import switch  # noqa: F401  (listens for the worker)

GROUP = "Global Rate Limit Options"

worker.params += [
    CeleryOption(
        ["--global-rate"],
        is_flag=True,
        default=False,
        help_group=GROUP,
        show_envvar=True,
        help="Let rate limits hold for the whole cluster instead of for each worker.",
    ),
    CeleryOption(
        ["--global-rate-url"],
        metavar="URL",
        help_group=GROUP,
        show_envvar=True,
        help="The Redis that keeps the limits; implies --global-rate. Default: global_rate_url, "
        "else the broker or the result backend, if that is a Redis.",
    ),
]


@click.group(name="global-rate", hidden=True)
def global_rate() -> None:
    """Rate limits for the whole cluster."""
