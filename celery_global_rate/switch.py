"""Switching on, and refusing to start with what cannot be meant."""

from __future__ import annotations

from typing import Any

from celery.exceptions import ImproperlyConfigured
from celery.signals import worker_init

from .declared import declared_limit
from .limit import Limit
from .settings import Settings
from .step import GlobalRateLimit


def check(app: Any, url: str | None = None) -> None:
    """Check the settings and the rates of all tasks.

    Raises:
        ImproperlyConfigured: a setting or a rate that cannot be meant; the text names it, its value and the remedy.
    """
    Settings.from_app(app, url)
    try:
        Limit.parse(app.conf.task_default_rate_limit)
    except ValueError as exc:
        raise ImproperlyConfigured(f"task_default_rate_limit: {exc}") from None
    app.finalize(auto=True)
    for name in sorted(app.tasks):
        try:
            declared_limit(app, app.tasks[name])
        except ValueError as exc:
            raise ImproperlyConfigured(f"task {name}: {exc}") from None


def on_worker_init(sender: Any, **kwargs: Any) -> None:
    """Add the step where `--global-rate` asks for it, and check before the worker is built.

    Stock Celery reads every rate in `Consumer.__init__`, before any step exists, and dies with a raw `KeyError` on
    a bad one. This signal comes earlier. It swallows exceptions, but not SystemExit, whose text Python prints.
    """
    steps = sender.app.steps["consumer"]
    if sender.options.get("global_rate") or sender.options.get("global_rate_url"):
        steps.add(GlobalRateLimit)
    if GlobalRateLimit in steps and not sender.disable_rate_limits:
        try:
            check(sender.app, sender.options.get("global_rate_url"))
        except ImproperlyConfigured as exc:
            raise SystemExit(f"global-rate: {exc}") from None


worker_init.connect(on_worker_init, weak=False, dispatch_uid="celery_global_rate")
