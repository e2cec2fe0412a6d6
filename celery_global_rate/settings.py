"""The operator's settings, checked once before the worker starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import redis
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from redis.credentials import CredentialProvider

from .redis_discovery import Source, inherited
from .storage.credentials import NamedProvider
from .storage.location import FORCED, Location
from .storage.outage_policies import HOLD, OPEN, POLICIES, SHARE
from .storage.redis_url import CLUSTERS, EXAMPLE, SENTINEL, redacted, scheme, spelled, split, taken_out, without_user

OPTION = "--global-rate-url"
URL, OPTIONS = "global_rate_url", "global_rate_redis_options"
PREFIX, MAX_HELD = "global_rate_key_prefix", "global_rate_max_held"
CONSUMER_TIMEOUT, ON_OUTAGE = "global_rate_consumer_timeout", "global_rate_on_outage"
BUCKETS = "global_rate_buckets"
PROVIDER = "credential_provider"
KNOWN = (URL, OPTIONS, PREFIX, MAX_HELD, CONSUMER_TIMEOUT, ON_OUTAGE, BUCKETS)

DEFAULT_PREFIX = "global-rate:v1:"
DEFAULT_MAX_HELD = 100
#: RabbitMQ's own default.
DEFAULT_CONSUMER_TIMEOUT_S = 1800

#: Options of redis-py that name files, and the attributes of its connection for them.
FILES = {"ssl_ca_certs": "ca_certs", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile"}


@dataclass(frozen=True)
class Settings(Location):
    """Where the limits are kept, and how much a worker may hold.

    Attributes:
        max_held: prefetch slots that are lent for held messages at the most.
        on_outage: what limited tasks do while Redis is away: `share`, `hold` or `open`.
        consumer_timeout_s: how long RabbitMQ waits for an acknowledgement, in seconds; 0 for forever.
    """

    max_held: int
    consumer_timeout_s: float = DEFAULT_CONSUMER_TIMEOUT_S
    on_outage: str = SHARE

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
        options, prefix = _options(conf), _prefix(conf, app.main)
        max_held, consumer_timeout_s, on_outage = _max_held(conf), _consumer_timeout_s(conf), _on_outage(conf)
        source = _source(conf, url) or default
        if source is None:
            raise ImproperlyConfigured(
                f"{URL} is not set, and neither the broker nor the result backend is a Redis: "
                f"set it to the Redis that keeps the limits, for example {EXAMPLE}"
            )
        settings = cls(*_server(source, options), prefix, max_held, consumer_timeout_s, on_outage)
        settings._try_out(source)
        return settings

    def _try_out(self, source: Source) -> None:
        """Make a connection without opening it, to see whether redis-py accepts what there is."""
        names = ", ".join(filter(None, (source.tls, source.transport, OPTIONS)))
        try:
            connection = self.connection()
        except (TypeError, ValueError, redis.RedisError):
            # The text of the error may repeat the URL or an option, and with it a password.
            given = ", ".join(map(str, self.redis_options)) or "no options"
            raise ImproperlyConfigured(
                f"redis-py does not accept {source.setting} = {self.address} with {given}: "
                f"check its parameters, and the names in {names}"
                f"{'' if source.setting in (OPTION, URL) else f'; or set {URL}'}"
            ) from None
        if scheme(self.url) in CLUSTERS and connection.db:
            raise ImproperlyConfigured(
                f"{source.setting} = {self.address}: limits in a Redis Cluster are kept in database 0, "
                f"not {connection.db}: take the number out of it and of {names}"
            )
        for option, attribute in FILES.items():
            path = getattr(connection, attribute, None)
            if path is not None and not os.access(str(path), os.R_OK):
                raise ImproperlyConfigured(
                    f"{option} = {path}: this user cannot read that file: check {source.setting}, {names}"
                )


def _options(conf: Any) -> Mapping[str, Any]:
    options = conf.get(OPTIONS, {})
    if not isinstance(options, Mapping):
        raise ImproperlyConfigured(
            f"{OPTIONS} is not a dictionary but {type(options).__name__}: use one, of arguments for redis-py"
        )
    return options


def _prefix(conf: Any, application: str | None) -> str:
    prefix = conf.get(PREFIX, DEFAULT_PREFIX + (application or "celery"))
    if not isinstance(prefix, str) or not prefix or "{" in prefix or "}" in prefix:
        raise ImproperlyConfigured(f"{PREFIX} = {prefix!r:.80}: use a non-empty string without braces")
    return prefix


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


def _on_outage(conf: Any) -> str:
    policy = conf.get(ON_OUTAGE, SHARE)
    if not isinstance(policy, str) or policy not in POLICIES:
        raise ImproperlyConfigured(
            f"{ON_OUTAGE} = {policy!r:.80}: use {SHARE!r}, where each worker continues at its share of each "
            f"limit, {HOLD!r}, where nothing with a limit starts, or {OPEN!r}, where everything does"
        )
    return policy


def _source(conf: Any, url: str | None) -> Source | None:
    """Where the URL of the Redis is given, or None."""
    if url is not None:
        return Source(OPTION, url)
    return Source(URL, conf.get(URL)) if conf.get(URL) is not None else None


def _server(source: Source, own: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The URL of a source and all options for it. What Sentinels call the master becomes a part of the URL."""
    options = {**source.options, **own}
    verify = options.get("ssl_cert_reqs")
    if isinstance(verify, str):  # Celery writes CERT_REQUIRED for what redis-py calls required
        options["ssl_cert_reqs"] = verify.removeprefix("CERT_").lower()
    url, _ = taken_out(spelled(source.url, source.setting), FORCED)
    url, named = taken_out(url, {PROVIDER})
    if provider := named.get(PROVIDER) or options.get(PROVIDER):
        options[PROVIDER] = _provider(provider, source)
        url = without_user(url)  # as kombu does: redis-py takes one or the other
        for name in ("username", "password"):
            options.pop(name, None)
    if scheme(url) != SENTINEL:
        return url, options
    name = options.pop("service_name", None)
    if "service_name=" not in url:
        if not isinstance(name, str) or not name:
            remedy = f"'service_name' in {OPTIONS}, or add ?service_name=mymaster to the URL"
            if source.transport:
                remedy = f"'master_name' in {source.transport}"
            raise ImproperlyConfigured(
                f"{source.setting} = {redacted(url)}: the Sentinel service name is missing: set {remedy}"
            )
        last = split(url)[-1]
        url += f"{'&' if '?' in last else '?'}service_name={quote(name, safe='')}"
    return url, options


def _provider(provider: Any, source: Source) -> CredentialProvider:
    """A credential provider, or one that is named."""
    if isinstance(provider, CredentialProvider):
        return provider
    try:
        return NamedProvider(provider)
    except Exception as exc:  # whatever the import of somebody's module raises
        raise ImproperlyConfigured(
            f"{source.setting}: the credential provider {provider if isinstance(provider, str) else ''} cannot be "
            f"imported ({type(exc).__name__}): use package.module.Class of a redis.CredentialProvider"
        ) from None


def _refuse_unknown(conf: Any) -> None:
    """A misspelt setting would have no effect, and nobody would notice."""
    namespace = conf.prefix or ""
    for key in map(str, conf):
        name = key[len(namespace) :].lower() if key.startswith(namespace) else ""
        if name.startswith("global_rate_") and (name not in KNOWN or not (namespace or key.islower())):
            raise ImproperlyConfigured(f"{key} is not a setting of this version: use {', '.join(KNOWN)}")
