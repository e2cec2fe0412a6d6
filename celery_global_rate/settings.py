"""The operator's settings, checked once before the worker starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from celery import Celery
from celery.exceptions import ImproperlyConfigured

from .feedback.longest import read_longest_s
from .redis_discovery import inherited
from .storage.location import Location
from .storage.outage_policies import SHARE, read_policy
from .storage.redis_url import EXAMPLE
from .storage.source import Source, read_options, read_prefix

OPTION = "--global-rate-url"
URL, OPTIONS = "global_rate_url", "global_rate_redis_options"
PREFIX, MAX_HELD = "global_rate_key_prefix", "global_rate_max_held"
CONSUMER_TIMEOUT, ON_OUTAGE = "global_rate_consumer_timeout", "global_rate_on_outage"
BUCKETS, BACKOFF = "global_rate_buckets", "global_rate_backoff"
KNOWN = (URL, OPTIONS, PREFIX, MAX_HELD, CONSUMER_TIMEOUT, ON_OUTAGE, BUCKETS, BACKOFF)

DEFAULT_PREFIX = "global-rate:v1:"
DEFAULT_MAX_HELD = 100
#: RabbitMQ's own default.
DEFAULT_CONSUMER_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Settings(Location):
    """Where the limits are kept, and how much a worker may hold.

    Attributes:
        max_held: prefetch slots that are lent for held messages at the most.
        on_outage: what limited tasks do while Redis is away: `share`, `hold` or `open`.
        backoff_s: the longest pause that an API may ask for, in seconds; 0 if none may.
        consumer_timeout_s: how long RabbitMQ waits for an acknowledgement, in seconds; 0 for forever.
    """

    max_held: int
    consumer_timeout_s: float = DEFAULT_CONSUMER_TIMEOUT_S
    on_outage: str = SHARE
    backoff_s: float = 0.0

    @classmethod
    def from_app(cls, app: Celery, url: str | None = None) -> Settings:
        """Read and check the settings of an application.

        Args:
            app: the application.
            url: the value of `--global-rate-url` or its environment variable, which goes before the setting.

        Raises:
            ImproperlyConfigured: a setting is invalid; the text names it, its value and the remedy.
        """
        conf = app.conf
        default = inherited(conf)  # reading one setting loads them all
        _refuse_unknown(conf)
        max_held, consumer_timeout_s = _max_held(conf), _consumer_timeout_s(conf)
        source = _source(conf, url) or default
        if source is None:
            raise ImproperlyConfigured(
                f"{URL} is not set, and neither the broker nor the result backend is a Redis: "
                f"set it to the Redis that keeps the limits, for example {EXAMPLE}"
            )
        source = replace(source, own=OPTIONS, instead="" if source.setting in (OPTION, URL) else URL)
        try:
            options = read_options(OPTIONS, conf.get(OPTIONS, {}))
            prefix = read_prefix(PREFIX, conf.get(PREFIX, DEFAULT_PREFIX + (app.main or "celery")))
            on_outage = read_policy(ON_OUTAGE, conf.get(ON_OUTAGE, SHARE))
            backoff_s = read_longest_s(BACKOFF, conf.get(BACKOFF)) or 0.0
            settings = cls(*source.server(options), prefix, max_held, consumer_timeout_s, on_outage, backoff_s)
            source.try_out(settings)
        except ValueError as exc:
            raise ImproperlyConfigured(str(exc)) from None
        return settings


def _max_held(conf: Any) -> int:
    max_held = conf.get(MAX_HELD, DEFAULT_MAX_HELD)
    if not isinstance(max_held, int) or isinstance(max_held, bool) or max_held < 0:
        raise ImproperlyConfigured(f"{MAX_HELD} = {max_held!r:.80}: use a whole number of 0 or more")
    return max_held


def _consumer_timeout_s(conf: Any) -> float:
    timeout_s = conf.get(CONSUMER_TIMEOUT, DEFAULT_CONSUMER_TIMEOUT_S)
    is_number = isinstance(timeout_s, (int, float)) and not isinstance(timeout_s, bool)
    if not is_number or not 0 <= timeout_s < float("inf"):
        raise ImproperlyConfigured(
            f"{CONSUMER_TIMEOUT} = {timeout_s!r:.80}: use the seconds that RabbitMQ waits for an acknowledgement "
            f"(its consumer_timeout, which is in milliseconds), or 0 if it waits forever"
        )
    return float(timeout_s)


def _source(conf: Any, url: str | None) -> Source | None:
    """Where the URL of the Redis is given, or None."""
    if url is not None:
        return Source(OPTION, url)
    return Source(URL, conf.get(URL)) if conf.get(URL) is not None else None


def _refuse_unknown(conf: Any) -> None:
    """A misspelt setting would have no effect, and nobody would notice."""
    namespace = conf.prefix or ""
    for key in map(str, conf):
        name = key[len(namespace) :].lower() if key.startswith(namespace) else ""
        if name.startswith("global_rate_") and (name not in KNOWN or not (namespace or key.islower())):
            raise ImproperlyConfigured(f"{key} is not a setting of this version: use {', '.join(KNOWN)}")
