"""The Redis that an application has already, with what Celery knows about reaching it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from kombu.utils.url import url_to_parts

from .storage.redis_url import SCHEMES, SENTINEL, scheme, split
from .storage.source import Source

#: Celery's transport options for Sentinel, and what redis-py calls them.
SENTINEL_OPTIONS = {
    "master_name": "service_name",
    "sentinel_kwargs": "sentinel_kwargs",
    "min_other_sentinels": "min_other_sentinels",
}
#: Settings that Celery takes if the URL has no user, password, host, port or database.
BROKER = ("broker_user", "broker_password", "", "broker_port", "broker_vhost")
BACKEND = ("redis_username", "redis_password", "redis_host", "redis_port", "")
#: Signs that a user or a password in a URL may have as they are.
UNQUOTED = "!$&'()*+,;="


def inherited(conf: Any) -> Source | None:
    """The broker if it is a Redis, else the result backend if that is one, else None."""
    broker = "broker_url" if conf.broker_read_url == conf.broker_url else "broker_read_url"
    return _source(conf, broker, conf.broker_read_url, "broker_use_ssl", "broker_transport_options") or _source(
        conf, "result_backend", conf.result_backend, "redis_backend_use_ssl", "result_backend_transport_options"
    )


def _source(conf: Any, setting: str, value: object, tls: str, transport: str) -> Source | None:
    is_backend = setting == "result_backend"
    values = value if isinstance(value, (list, tuple)) else [value]
    defaults = [conf.get(name) for name in (BACKEND if is_backend else BROKER)]
    is_read = _is_read_by_backend if is_backend else _is_read_by_broker
    urls = [_as_celery_reads(url, defaults, is_read) for text in values if isinstance(text, str) for url in split(text)]
    if not urls or scheme(urls[0]) not in (*SCHEMES, SENTINEL):
        return None
    use_ssl = conf.get(tls)
    in_url = "ssl_" in urls[0].partition("?")[2]
    options: dict[str, Any] = {}
    if isinstance(use_ssl, Mapping) and use_ssl:  # True has no meaning for a Redis, and Celery ignores it too
        options.update(ssl=True, **use_ssl)
    elif in_url:
        options.update(ssl=True)
    elif scheme(urls[0]) == "rediss" and not is_backend:
        options.update(ssl_cert_reqs="none")  # as Celery does for a broker, and warns about it
    if is_backend and (provider := conf.get("redis_backend_credential_provider")):
        options.update(credential_provider=provider)
    if scheme(urls[0]) != SENTINEL:
        return Source(setting, urls[0], options, tls)
    found = conf.get(transport) or {}
    options.update({SENTINEL_OPTIONS[name]: found[name] for name in SENTINEL_OPTIONS if name in found})
    sentinels = ";".join(url for url in urls if scheme(url) == SENTINEL)
    return Source(setting, sentinels, options, tls, transport)


def _is_read_by_broker(parameter: str) -> bool:
    return parameter.startswith("ssl_") or parameter == "credential_provider"


def _is_read_by_backend(parameter: str) -> bool:
    return parameter != "virtual_host"


def _as_celery_reads(url: str, defaults: Sequence[object], is_read: Callable[[str], bool]) -> str:
    """A URL with what Celery adds to it, and without what Celery does not read: other parameters, further hosts.

    One that cannot be read stays as it is, and is refused later.
    """
    if scheme(url) not in (*SCHEMES, SENTINEL) or SCHEMES.get(scheme(url)) == "unix":
        return url
    before, at, after = url.rpartition("@")
    try:
        parts = url_to_parts(before + at + after.partition(";")[0])
        found = (parts.username, parts.password, parts.hostname, parts.port, parts.path)
    except ValueError:
        return url
    user, password, host, port, path = (str(one or other or "") for one, other in zip(found, defaults))
    login = quote(user, UNQUOTED) + (f":{quote(password, UNQUOTED)}" if password else "")
    kept = [(name, text) for name, text in parts.query.items() if is_read(name)]
    return "".join(
        [
            f"{scheme(url)}://",
            f"{login}@" if login else "",
            f"[{host}]" if ":" in host else host,
            f":{port}" if port else "",
            f"/{path}" if path else "",
            f"?{urlencode(kept)}" if kept else "",
        ]
    )
