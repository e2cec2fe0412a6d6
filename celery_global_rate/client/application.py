"""What an application has a limit for, for limiters that are made from it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from ..declared_limits import declared_limits
from ..limits.bucket import OWN
from ..named_buckets import read_named_buckets
from ..settings import Settings
from ..storage.location import Location
from .terms import Terms

#: How many names an error lists.
LISTED = 10


def terms_of(app: Any, name: str, url: str | None) -> tuple[Terms, Location, str]:
    """The limits of a named bucket or a task, where they are kept, and the policy for outages.

    Raises:
        ValueError: there is no limit of that name.
        ImproperlyConfigured: a setting is invalid.
    """
    settings = Settings.from_app(app, url)
    location = Location(settings.url, settings.redis_options, settings.key_prefix)
    named = read_named_buckets(app.conf)
    if bucket := named.get(name):
        terms = Terms(name, bucket.limits, bucket.windows, bucket.key is not None)
        return terms, location, settings.on_outage
    app.finalize(auto=True)
    task = app.tasks.get(name)
    limits = declared_limits(app, task) if task is not None else ()
    if not limits:
        limited = (it for it in app.tasks if declared_limits(app, app.tasks[it]))
        raise ValueError(f"name = {name!r:.80}: {_remedy(name, sorted((*named, *limited)), task is not None)}")
    return Terms(name, limits, (OWN,), has_keys=False, is_crossed=False), location, settings.on_outage


def _remedy(name: object, names: list[str], is_task: bool) -> str:
    problem = "that task has no limit of its own" if is_task else "there is no limit of that name"
    if close := get_close_matches(str(name), names, 1):
        return f"{problem}: did you mean {close[0]!r}?"
    if not names:
        return f"{problem}, nor any other: declare one in global_rate_buckets, or a rate_limit of a task"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{problem}: there are {_listed(names[:LISTED])}{more}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
