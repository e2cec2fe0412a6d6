"""Enabling the limits, and refusing to start with invalid settings."""

from __future__ import annotations

import logging
import re
from typing import Any

from celery.app import utils
from celery.exceptions import ImproperlyConfigured
from celery.signals import worker_init

from .declared_limits import declared_limits
from .limits.limit import Limit, Limits
from .named_buckets import check_against_tasks, read_named_buckets
from .settings import URL, Settings
from .worker.step import GlobalRateLimit

logger = logging.getLogger(__name__)

# Celery masks values by the names of settings, in `celery report`, `inspect conf`, and so in Flower. A URL may have a
# password in it.
utils.HIDDEN_SETTINGS = re.compile(f"{utils.HIDDEN_SETTINGS.pattern}|{URL}", re.IGNORECASE)

#: Set by `auto`.
on_in_every_worker = False


def check(app: Any, url: str | None = None) -> None:
    """Check the settings and the rates of all tasks.

    Raises:
        ImproperlyConfigured: a setting or a rate is invalid; the text names it, its value and the remedy.
    """
    Settings.from_app(app, url)
    check_rates(app)


def check_rates(app: Any) -> None:
    """Check the rates of all tasks and named buckets, together.

    Raises:
        ImproperlyConfigured: one is invalid; the text names it, its value and the remedy.
    """
    try:
        Limit.parse(app.conf.task_default_rate_limit)
    except ValueError as exc:
        raise ImproperlyConfigured(f"task_default_rate_limit: {exc}") from None
    app.finalize(auto=True)
    declared: dict[str, Limits] = {}
    for name in sorted(app.tasks):
        try:
            declared[name] = declared_limits(app, app.tasks[name])
        except ValueError as exc:
            raise ImproperlyConfigured(f"task {name}: {exc}") from None
    check_against_tasks(read_named_buckets(app.conf), declared, declared.__getitem__)


def on_worker_init(sender: Any, **kwargs: Any) -> None:
    """Add the step if an option or `auto` asks for it, and check before the worker is built.

    Stock Celery reads every rate in `Consumer.__init__`, before any step exists, and dies with a raw `KeyError` on
    a bad one. This signal comes earlier, and after all that `imports` and `include` name. It swallows exceptions, but
    not SystemExit, whose text Python prints.
    """
    steps = sender.app.steps["consumer"]
    url = sender.options.get("global_rate_url")
    if on_in_every_worker or sender.options.get("global_rate") or url is not None:
        steps.add(GlobalRateLimit)  # a set: twice is once
    if GlobalRateLimit in steps and not sender.disable_rate_limits:
        try:
            check(sender.app, url)
        except ImproperlyConfigured as exc:
            if sender.logfile:  # Celery has not opened it yet, and a detached worker has no other place to say it
                sender.app.log.setup(sender.loglevel, sender.logfile, hostname=sender.hostname)
                logger.critical("global-rate: %s", exc)
            raise SystemExit(f"global-rate: {exc}") from None


worker_init.connect(on_worker_init, weak=False, dispatch_uid="celery_global_rate")
