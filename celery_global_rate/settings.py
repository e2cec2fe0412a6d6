"""What the operator says: settings, checked once before the worker starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis
from celery import Celery
from celery.exceptions import ImproperlyConfigured

URL, OPTIONS = "global_rate_url", "global_rate_redis_options"
PREFIX, MAX_HELD = "global_rate_key_prefix", "global_rate_max_held"
KNOWN = (URL, OPTIONS, PREFIX, MAX_HELD)

DEFAULT_PREFIX = "global-rate:v1:"
DEFAULT_MAX_HELD = 100

#: How URLs of Redis are spelled in Celery's world, and what redis-py calls them.
SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "unix": "unix",
    "redis+socket": "unix",
    "socket": "unix",
}

CONNECT_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Settings:
    """Where the limiter lives and how much a worker may hold.

    Attributes:
        url: the Redis, in redis-py's spelling. Not in the repr: it may hold a password.
        redis_options: passed to redis-py.
        key_prefix: the prefix of all keys; apps that share it share buckets.
        max_held: prefetch slots lent for held messages at the most.
    """

    url: str = field(repr=False)
    redis_options: Mapping[str, Any] = field(repr=False)
    key_prefix: str
    max_held: int

    @classmethod
    def from_app(cls, app: Celery, url: str | None = None) -> Settings:
        """Read and check the settings of an application.

        Args:
            app: the application.
            url: the value of `--global-rate-url`, which goes before the setting.

        Raises:
            ImproperlyConfigured: a setting that cannot be meant; the text names it, its value and the remedy.
        """
        conf = app.conf
        for key in conf:
            name = key.lower().removeprefix((conf.prefix or "").lower()) if isinstance(key, str) else ""
            if name.startswith("global_rate_") and name not in KNOWN:
                raise ImproperlyConfigured(f"{key} is not a setting of global-rate: use one of {', '.join(KNOWN)}")
        settings = cls(
            _redis_url(url or conf.get(URL) or _inherited(app)),
            _checked(conf.get(OPTIONS, {}), OPTIONS, Mapping, "a dictionary of arguments for redis-py"),
            _checked(conf.get(PREFIX, DEFAULT_PREFIX + (app.main or "celery")), PREFIX, str, "a text that is not empty"),
            _checked(conf.get(MAX_HELD, DEFAULT_MAX_HELD), MAX_HELD, int, "a whole number of 0 or more"),
        )
        if settings.max_held < 0 or isinstance(settings.max_held, bool):
            raise ImproperlyConfigured(f"{MAX_HELD} = {settings.max_held!r}: use a whole number of 0 or more")
        if not settings.key_prefix or set(settings.key_prefix) & set("{}"):
            raise ImproperlyConfigured(f"{PREFIX} = {settings.key_prefix!r}: use a text that is not empty, without braces")
        settings.connection()
        return settings

    @property
    def address(self) -> str:
        """The Redis as logs may show it: without user, password and options."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))

    def connection(self) -> Any:
        """A connection of redis-py to this Redis, not open yet.

        Raises:
            ImproperlyConfigured: the URL or an option cannot be read.
        """
        timeouts = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": CONNECT_TIMEOUT_S}
        # RESP3 would push messages between the answers.
        options = {**timeouts, **self.redis_options, "protocol": 2}
        try:
            return redis.Redis.from_url(self.url, **options).connection_pool.make_connection()
        except (TypeError, ValueError) as exc:
            names = ", ".join(sorted(self.redis_options)) or "none"
            problem = str(exc).replace(self.url, self.address)
            raise ImproperlyConfigured(
                f"{URL} = {self.address} with {OPTIONS} {names}: redis-py does not accept it: {problem}"
            ) from None


def _checked(value: Any, name: str, kind: type, form: str) -> Any:
    if not isinstance(value, kind):
        raise ImproperlyConfigured(f"{name} = {value!r}: use {form}")
    return value


def _inherited(app: Celery) -> str:
    for candidate in (app.conf.broker_read_url, app.conf.result_backend):
        first = candidate[0] if isinstance(candidate, (list, tuple)) and candidate else candidate
        if isinstance(first, str) and first.partition("://")[0] in SCHEMES:
            return first.partition(";")[0]
    raise ImproperlyConfigured(
        f"{URL} is not set, and neither the broker nor the result backend is a Redis: "
        f"set {URL} to the Redis that keeps the limits, for example redis://localhost:6379/0"
    )


def _redis_url(url: object) -> str:
    scheme, separator, rest = url.partition("://") if isinstance(url, str) else ("", "", "")
    if not separator or scheme not in SCHEMES:
        raise ImproperlyConfigured(f"{URL} starts with {scheme or url!r}: use one of {', '.join(SCHEMES)}, as in redis://host:6379/0")
    return f"{SCHEMES[scheme]}://{rest.replace('virtual_host=', 'db=')}"
