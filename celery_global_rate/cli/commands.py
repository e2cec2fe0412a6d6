"""The commands with which operators change limits: directly in Redis, with or without workers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import click
from celery.exceptions import ImproperlyConfigured

from ..declared_limits import NOT_LIMITED
from ..limits import duration
from ..limits.key_values import as_value
from ..limits.limit import spelled
from ..limits.override import DECLARED, LONGEST_REASON, RESUME, Override, parse_rates, pause, reset, set_limits
from ..storage.back_offs import note
from ..storage.blocking_store import ERRORS, BlockingStore
from ..storage.cause import cause
from ..worker.status import describe
from . import show
from .context import Context

URL = click.option(
    "--global-rate-url",
    envvar="CELERY_WORKER_GLOBAL_RATE_URL",
    metavar="URL",
    help="Redis URL; needed if the workers were started with this option.",
)


def _short(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Workers send the override, and the reason in it, with every call."""
    if len(value) > LONGEST_REASON:
        raise click.BadParameter(f"it has {len(value)} characters: write {LONGEST_REASON} or fewer")
    return value


REASON = click.option(
    "--reason", default="", metavar="TEXT", callback=_short, help="Reason, shown by `show`, `history` and workers."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
ALL = click.option("--all", "for_all", is_flag=True, help="All named buckets, and tasks with a limit or an override.")


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click alone
    """A length of time."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Read it."""
        try:
            return duration.parse(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


EXPIRES = click.option("--expires", type=Duration(), metavar="TIME", help="Duration: 90s, 15m, 2h, 1h30m.")


def with_store(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command its context and an open store, and turn errors of these into plain messages."""

    @URL
    @click.pass_context
    def run(ctx: click.Context, /, global_rate_url: str | None, **options: Any) -> None:
        try:
            context = Context(ctx.obj.app, global_rate_url)
        except ImproperlyConfigured as exc:
            raise click.ClickException(f"global-rate: {exc}") from None
        try:
            with BlockingStore(context.settings) as store:
                command(context, store, **options)
        except ERRORS as exc:
            raise click.ClickException(
                f"no answer from the Redis at {context.settings.address} ({cause(exc)})"
            ) from None

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def change(
    context: Context,
    store: BlockingStore,
    names: Sequence[str],
    make: Callable[[str], dict[str, Any]],
    verb: str,
    reason: str,
) -> None:
    """Write a change for each of some buckets, and print what is in force then."""
    for name in names:
        _, override = store.change(name, make(name), context.by, f"global-rate {verb}", reason)
        assert override is not None
        click.echo(f"{name}: {_in_force(context, name, override, store.now_us())}")
    if not names:
        click.echo("no task has a limit")


def _in_force(context: Context, name: str, override: Override, now_us: float) -> str:
    if context.is_unlimited(name):
        return NOT_LIMITED
    declared = spelled(context.declared(name), "no limit")
    limit_override, paused = override.limit_override_at(now_us), override.pause_at(now_us)
    parts = [f"{declared} as declared"]
    if limit_override:
        limits = spelled(limit_override.limits, "no limit")
        parts.insert(0, f"{limits} by override{_left(limit_override.until_us, now_us)}")
    if override.what in ("set", "reset") and override.limit_override and override.limit_override.replaced != DECLARED:
        parts.append(f"before {override.limit_override.replaced}")
    if paused:
        parts.append(f"paused{_left(paused.until_us, now_us) or ' until resume'}")
    return "; ".join(parts)


def _left(until_us: int | None, now_us: float) -> str:
    return f" for {duration.format_duration((until_us - now_us) / 1e6)}" if until_us else ""


@click.command(name="set")
@click.argument("task")
@click.argument("rate")
@click.option("--burst", type=click.IntRange(1), help="Slots in a full bucket. Default: what the task declares.")
@EXPIRES
@REASON
@with_store
def set_command(
    context: Context,
    store: BlockingStore,
    task: str,
    rate: str,
    burst: int | None,
    expires: float | None,
    reason: str,
) -> None:
    """Override the limit of TASK: 100/m, 5/s, 20/h, 1000/d, 5/30s, or none for no limit.

    TASK may be a named bucket. If it has several rates, write as many, in that order: 20/s,2000/h.

    It applies to the whole cluster, including workers that start later, until `reset` or --expires.
    """
    context.require_limits(task)
    try:
        limits, text = parse_rates(rate, context.kept(task, burst))
    except ValueError as exc:
        raise click.ClickException(str(exc)) from None
    until_us = None if expires is None else store.now_us() + int(expires * 1e6)
    new = set_limits(limits, text, context.declared(task), until_us)
    change(context, store, [task], lambda name: new, "set", reason)


@click.command(name="reset")
@click.argument("task", required=False)
@ALL
@REASON
@with_store
def reset_command(context: Context, store: BlockingStore, task: str | None, for_all: bool, reason: str) -> None:
    """Remove the override: the limit that TASK declares applies again."""
    names = context.chosen(task, for_all, store.overrides())
    change(context, store, names, lambda name: reset(context.declared(name)), "reset", reason)


@click.command(name="pause")
@click.argument("task", required=False)
@ALL
@EXPIRES
@REASON
@with_store
def pause_command(
    context: Context, store: BlockingStore, task: str | None, for_all: bool, expires: float | None, reason: str
) -> None:
    """Pause TASK until `resume`, or for --expires. Limits are unchanged."""
    if task is not None:
        context.require_limits(task)
    until_us = None if expires is None else store.now_us() + int(expires * 1e6)
    names = [name for name in context.chosen(task, for_all, store.overrides()) if not context.is_unlimited(name)]
    change(context, store, names, lambda name: pause(until_us), "pause", reason)


@click.command(name="resume")
@click.argument("task", required=False)
@ALL
@REASON
@click.option("--key", metavar="VALUE", help="End only the pause that an API has asked for this value of the key.")
@with_store
def resume_command(
    context: Context, store: BlockingStore, task: str | None, for_all: bool, reason: str, key: str | None
) -> None:
    """Resume TASK at its limit, without a burst to catch up: whoever has paused it, its API too."""
    value = _value(context, task, key)
    names = context.chosen(task, for_all, store.overrides())
    for name in names:
        why = note(name, value, f"resumed by {context.by}")
        _, has_ended = store.back_off(name, context.windows(name, value), 0, why)
        if has_ended:
            click.echo(f"{name}: the pause that its API has asked for is over")
        elif key is not None:
            click.echo(f"{name}: its API has asked for no pause for {key}")
    if key is None:
        change(context, store, names, lambda name: RESUME, "resume", reason)


def _value(context: Context, task: str | None, key: str | None) -> str | None:
    """The value of the key of a named bucket, as a part of a Redis key."""
    if key is None:
        return None
    if task is None or task not in context.keyed:
        raise click.UsageError(
            f"--key is for a named bucket with a key: {', '.join(sorted(context.keyed)) or 'none here'}"
        )
    return as_value(key)


@click.command(name="history")
@click.argument("task")
@JSON
@with_store
def history_command(context: Context, store: BlockingStore, task: str, as_json: bool) -> None:
    """Show the last 20 changes of TASK, newest first."""
    if task not in store.overrides():
        context.require(task)
    overrides, now_us = store.history(task), store.now_us()
    if as_json:
        click.echo(json.dumps([show.change(override, now_us) for override in overrides], indent=1))
        return
    for override in overrides:
        rate = override.limit_override.rate if override.limit_override and override.what in ("set", "reset") else ""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(override.origin.when_us / 1e6))
        click.echo(f"{when}  {override.what} {rate}".rstrip() + f"  {describe(override.origin, now_us)}")
    if not overrides:
        click.echo(f"{task} was never overridden")


@click.command(name="show")
@click.argument("task", required=False)
@JSON
@click.option("--key", metavar="VALUE", help="The bucket of this value of the key of TASK, a named bucket.")
@click.option("--watch", is_flag=True, help="Redraw until Ctrl-C.")
@click.option(
    "-t",
    "--timeout",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for workers to report what they hold; 0 does not ask them.",
)
@with_store
def show_command(
    context: Context,
    store: BlockingStore,
    task: str | None,
    as_json: bool,
    key: str | None,
    watch: bool,
    timeout: float,
) -> None:
    """Show every limit: declared, in force, and current activity."""
    names = None if task is None else context.chosen(task, False, {})
    value = _value(context, task, key)
    try:
        while True:
            rows = show.rows(context, store, names, value, timeout)
            if watch and not as_json:
                click.clear()
            click.echo(json.dumps([row.facts for row in rows], indent=1) if as_json else "\n".join(show.table(rows)))
            if not watch:
                return
    except KeyboardInterrupt:
        return


COMMANDS = (set_command, reset_command, pause_command, resume_command, history_command, show_command)
