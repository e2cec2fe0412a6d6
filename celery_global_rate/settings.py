"""What the operator says: settings, checked once before the worker starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

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

#: To connect and to shake hands, in seconds. A thread does both, never the event loop.
CONNECT_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Settings:
    """Where the limits are kept, and how much a worker may hold.

    Attributes:
        url: the Redis, in redis-py's spelling. Not in the repr, because it may hold a password.
        redis_options: passed to redis-py.
        key_prefix: the prefix of all keys; apps that share it share buckets.
        max_held: prefetch slots that are lent for held messages at the most.
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
        inherited = _inherited_url(conf)  # reading one setting loads them all
        _refuse_unknown(conf)
        settings = cls(
            url=_redis_url(url or conf.get(URL) or inherited),
            redis_options=conf.get(OPTIONS, {}),
            key_prefix=conf.get(PREFIX, DEFAULT_PREFIX + (app.main or "celery")),
            max_held=conf.get(MAX_HELD, DEFAULT_MAX_HELD),
        )
        options, prefix, max_held = settings.redis_options, settings.key_prefix, settings.max_held
        if not isinstance(options, Mapping):
            raise ImproperlyConfigured(
                f"{OPTIONS} is not a dictionary but {type(options).__name__}: use one, of arguments for redis-py"
            )
        if not isinstance(prefix, str) or not prefix or "{" in prefix or "}" in prefix:
            raise ImproperlyConfigured(f"{PREFIX} = {prefix!r}: use a text that is not empty and has no braces")
        if not isinstance(max_held, int) or isinstance(max_held, bool) or max_held < 0:
            raise ImproperlyConfigured(f"{MAX_HELD} = {max_held!r}: use a whole number of 0 or more")
        settings.connection()
        return settings

    @property
    def address(self) -> str:
        """The Redis as logs may show it: without user, password and options."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"

    def connection(self) -> Any:
        """A connection of redis-py to this Redis, not open yet.

        Raises:
            ImproperlyConfigured: redis-py does not accept the URL or an option.
        """
        timeouts = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": CONNECT_TIMEOUT_S}
        # RESP3 would push messages between the answers.
        options = {**timeouts, **self.redis_options, "protocol": 2}
        try:
            if not re.fullmatch(r"/?\d*", urlsplit(self.url).path) and not self.url.startswith("unix"):
                raise ValueError
            return redis.Redis.from_url(self.url, **options).connection_pool.make_connection()
        except (TypeError, ValueError, redis.RedisError):
            # The text of the error may repeat the URL or an option, and with it a password.
            names = ", ".join(self.redis_options) or "no options"
            raise ImproperlyConfigured(
                f"redis-py does not accept the Redis {self.address} with {names}: check {URL} (or the URL of the "
                f"broker, where it is not set): its host, port and database, and the names in {OPTIONS}"
            ) from None


def _refuse_unknown(conf: Any) -> None:
    """A misspelt setting would have no effect, and nobody would notice."""
    namespace = conf.prefix or ""
    for key in map(str, conf):
        name = key[len(namespace) :].lower() if key.startswith(namespace) else ""
        if name.startswith("global_rate_") and (name not in KNOWN or not (namespace or key.islower())):
            raise ImproperlyConfigured(f"{key} is not a setting of this version: use {', '.join(KNOWN)}")


def _inherited_url(conf: Any) -> str | None:
    """The Redis that the application has already, or None."""
    for urls in (conf.broker_read_url, conf.result_backend):
        first = urls[0] if isinstance(urls, (list, tuple)) and urls else urls
        if isinstance(first, str) and first.partition("://")[0] in SCHEMES:
            return first.partition(";")[0]
    return None


def _redis_url(url: object) -> str:
    if url is None:
        raise ImproperlyConfigured(
            f"{URL} is not set, and neither the broker nor the result backend is a Redis: "
            f"set it to the Redis that shall keep the limits, for example redis://localhost:6379/0"
        )
    scheme, separator, rest = url.partition("://") if isinstance(url, str) else ("", "", "")
    if not separator:
        raise ImproperlyConfigured(f"{URL} is not a URL: write it like redis://localhost:6379/0")
    if scheme not in SCHEMES:
        raise ImproperlyConfigured(f"{URL} = {scheme}://...: use one of {', '.join(SCHEMES)}")
    if set(rest.rpartition("@")[0]) & set("/?#@"):
        raise ImproperlyConfigured(f"{URL}: its password has one of / ? # @ in it: write %2F, %3F, %23 or %40 instead")
    # Celery and redis-py spell two options differently.
    rest = re.sub(r"ssl_cert_reqs=CERT_(\w+)", lambda option: f"ssl_cert_reqs={option[1].lower()}", rest)
    return f"{SCHEMES[scheme]}://{rest.replace('virtual_host=', 'db=')}"
