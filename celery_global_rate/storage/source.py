"""Where the URL of a Redis was given, and how that Redis is reached by what was given there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import redis
from redis.credentials import CredentialProvider

from .credentials import NamedProvider
from .location import FORCED, Location
from .redis_url import CLUSTERS, SENTINEL, redacted, scheme, spelled, split, taken_out, without_user

PROVIDER = "credential_provider"

#: Options of redis-py that name files, and the attributes of its connection for them.
FILES = {"ssl_ca_certs": "ca_certs", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile"}


@dataclass(frozen=True)
class Source:
    """Where the URL of the Redis comes from.

    Attributes:
        setting: the setting or the option that has the URL.
        url: its value.
        options: arguments for redis-py that come with it.
        tls: the setting that has the options for TLS.
        transport: the setting that has the options for Sentinel.
        own: the setting that has further arguments for redis-py.
        instead: the setting that could have the URL instead.
    """

    setting: str
    url: object = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tls: str = ""
    transport: str = ""
    own: str = ""
    instead: str = ""

    def server(self, own: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The URL and all options for it. What Sentinels call the master becomes a part of the URL.

        Args:
            own: further arguments for redis-py.

        Raises:
            ValueError: something is invalid; the text names it, its value and the remedy.
        """
        options = {**self.options, **own}
        verify = options.get("ssl_cert_reqs")
        if isinstance(verify, str):  # Celery writes CERT_REQUIRED for what redis-py calls required
            options["ssl_cert_reqs"] = verify.removeprefix("CERT_").lower()
        url, _ = taken_out(spelled(self.url, self.setting), FORCED)
        url, named = taken_out(url, {PROVIDER})
        if provider := named.get(PROVIDER) or options.get(PROVIDER):
            options[PROVIDER] = self._provider(provider)
            url = without_user(url)  # as kombu does: redis-py takes one or the other
            for name in ("username", "password"):
                options.pop(name, None)
        if scheme(url) != SENTINEL:
            return url, options
        name = options.pop("service_name", None)
        if "service_name=" not in url:
            if not isinstance(name, str) or not name:
                remedy = f"'service_name' in {self.own}, or add ?service_name=mymaster to the URL"
                if self.transport:
                    remedy = f"'master_name' in {self.transport}"
                raise ValueError(
                    f"{self.setting} = {redacted(url)}: the Sentinel service name is missing: set {remedy}"
                )
            last = split(url)[-1]
            url += f"{'&' if '?' in last else '?'}service_name={quote(name, safe='')}"
        return url, options

    def _provider(self, provider: Any) -> CredentialProvider:
        """A credential provider, or one that is named."""
        if isinstance(provider, CredentialProvider):
            return provider
        try:
            return NamedProvider(provider)
        except Exception as exc:  # whatever the import of somebody's module raises
            raise ValueError(
                f"{self.setting}: the credential provider {provider if isinstance(provider, str) else ''} cannot be "
                f"imported ({type(exc).__name__}): use package.module.Class of a redis.CredentialProvider"
            ) from None

    def try_out(self, location: Location) -> None:
        """Make a connection without opening it, to see whether redis-py accepts what there is.

        Raises:
            ValueError: it does not; the text names what may be wrong.
        """
        names = ", ".join(filter(None, (self.tls, self.transport, self.own)))
        try:
            connection = location.connection()
        except (TypeError, ValueError, redis.RedisError):
            # The text of the error may repeat the URL or an option, and with it a password.
            given = ", ".join(map(str, location.redis_options)) or "no options"
            raise ValueError(
                f"redis-py does not accept {self.setting} = {location.address} with {given}: "
                f"check its parameters, and the names in {names}"
                f"{f'; or set {self.instead}' if self.instead else ''}"
            ) from None
        if scheme(location.url) in CLUSTERS and connection.db:
            raise ValueError(
                f"{self.setting} = {location.address}: limits in a Redis Cluster are kept in database 0, "
                f"not {connection.db}: take the number out of it and of {names}"
            )
        for option, attribute in FILES.items():
            path = getattr(connection, attribute, None)
            if path is not None and not os.access(str(path), os.R_OK):
                raise ValueError(f"{option} = {path}: this user cannot read that file: check {self.setting}, {names}")


def read_options(setting: str, options: object) -> Mapping[str, Any]:
    """Arguments for redis-py.

    Raises:
        ValueError: they are not a dictionary.
    """
    if not isinstance(options, Mapping):
        raise ValueError(
            f"{setting} is not a dictionary but {type(options).__name__}: use one, of arguments for redis-py"
        )
    return options


def read_prefix(setting: str, prefix: object) -> str:
    """The prefix of all keys.

    Raises:
        ValueError: it cannot be one; the text names it and what to use instead.
    """
    if not isinstance(prefix, str) or not prefix or "{" in prefix or "}" in prefix:
        raise ValueError(f"{setting} = {prefix!r:.80}: use a non-empty string without braces")
    return prefix
