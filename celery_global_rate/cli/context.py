"""What operators' commands share: the application, its tasks and limits, and who runs the command."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from typing import Any

import click

from ..declared_limits import NOT_LIMITED, declared_limits, has_own_strategy, kept_of
from ..limits.bucket import OWN, window_of
from ..limits.limit import Limits
from ..limits.override import Kept
from ..named_buckets import read_named_buckets
from ..settings import Settings


class Context:
    """An application, and the operator who changes its limits.

    Args:
        app: the application.
        url: of the Redis, from the command line.
    """

    def __init__(self, app: Any, url: str | None) -> None:
        self.app = app
        self.settings = Settings.from_app(app, url)
        app.loader.import_default_modules()
        app.finalize(auto=True)
        self.named = read_named_buckets(app.conf)
        self.by = f"{_user()}@{socket.gethostname()}"

    def declared(self, name: str) -> Limits:
        """What a task or a named bucket declares; nothing for one that no longer exists."""
        if name in self.named:
            return self.named[name].limits
        if name not in self.app.tasks:
            return ()
        try:
            return declared_limits(self.app, self.app.tasks[name])
        except ValueError as exc:
            raise click.ClickException(f"task {name}: {exc}") from None

    def kept(self, name: str, burst: int | None) -> list[Kept]:
        """What stays of each limit that a task or a named bucket has or may be given, unless another burst is given."""
        declared = kept_of(self.app, self.named, name)
        if burst is None:
            return declared
        if len(declared) > 1:
            raise click.UsageError(f"{name} has several limits: --burst is for one")
        if window := declared[0].window:
            raise click.UsageError(f"{name} has a {window.kind} window: --burst is for limits without one")
        return [Kept(burst)]

    @property
    def keyed(self) -> set[str]:
        """The named buckets with a key: there is one bucket for each value of it."""
        return {name for name, bucket in self.named.items() if bucket.key}

    def windows(self, name: str, value: str | None) -> list[str]:
        """The windows of the limits that a task or a named bucket has or may be given, for a value of its key."""
        windows = self.named[name].windows if name in self.named else (OWN,)
        return [window_of(window, value) for window in windows]

    def is_unlimited(self, name: str) -> bool:
        """Whether a task has its own strategy, so that no limit applies to it."""
        return name in self.app.tasks and has_own_strategy(self.app.tasks[name])

    def limited(self, overrides: Mapping[str, object]) -> list[str]:
        """The named buckets, and the tasks that have a limit or an override."""
        return sorted({name for name in self.app.tasks if self.declared(name)} | set(self.named) | set(overrides))

    def chosen(self, name: str | None, for_all: bool, overrides: Mapping[str, object]) -> list[str]:
        """The tasks and named buckets that a command is for.

        All are those that have a limit or an override. A task with its own strategy is one of them only if it has an
        override, which an earlier version wrote.
        """
        if for_all == (name is not None):
            raise click.UsageError("name a task, or use --all")
        if name is None:
            return [it for it in self.limited(overrides) if it in overrides or not self.is_unlimited(it)]
        self.require(name)
        return [name]

    def require(self, name: str) -> None:
        """Refuse what is neither a task nor a named bucket."""
        if name not in self.app.tasks and name not in self.named:
            tasks = (name for name in sorted(self.app.tasks) if not name.startswith("celery."))
            known = ", ".join([*sorted(self.named), *tasks]) or "none"
            raise click.ClickException(f"unknown task {name}: this application has {known}")

    def require_limits(self, name: str) -> None:
        """Refuse an unknown task, and one that limits do not apply to."""
        self.require(name)
        if self.is_unlimited(name):
            raise click.ClickException(f"{name} is {NOT_LIMITED}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a password file
        return "unknown"
