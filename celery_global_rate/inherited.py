"""The Redis that an application has already, with what Celery knows about reaching it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .address import SCHEMES, SENTINEL, scheme, split

#: Celery's transport options for Sentinel, and what redis-py calls them.
SENTINEL_OPTIONS = {
    "master_name": "service_name",
    "sentinel_kwargs": "sentinel_kwargs",
    "min_other_sentinels": "min_other_sentinels",
}


@dataclass(frozen=True)
class Source:
    """Where the URL of the Redis comes from.

    Attributes:
        setting: the setting or the option that has the URL.
        url: its value.
        options: arguments for redis-py that come with it.
        tls: the setting that has the options for TLS.
        transport: the setting that has the options for Sentinel.
    """

    setting: str
    url: object
    options: Mapping[str, Any] = field(default_factory=dict)
    tls: str = ""
    transport: str = ""


def inherited(conf: Any) -> Source | None:
    """The broker if it is a Redis, else the result backend if that is one, else None."""
    broker = "broker_url" if conf.broker_read_url == conf.broker_url else "broker_read_url"
    return _source(conf, broker, conf.broker_read_url, "broker_use_ssl", "broker_transport_options") or _source(
        conf, "result_backend", conf.result_backend, "redis_backend_use_ssl", "result_backend_transport_options"
    )


def _source(conf: Any, setting: str, value: object, tls: str, transport: str) -> Source | None:
    values = value if isinstance(value, (list, tuple)) else [value]
    urls = [url for text in values if isinstance(text, str) for url in split(text)]
    if not urls or scheme(urls[0]) not in (*SCHEMES, SENTINEL):
        return None
    use_ssl = conf.get(tls)
    in_url = "ssl_" in urls[0].partition("?")[2]
    options: dict[str, Any] = {}
    if isinstance(use_ssl, Mapping) and use_ssl:  # True says nothing about a Redis, and Celery ignores it too
        options.update(ssl=True, **use_ssl)
    elif in_url:
        options.update(ssl=True)
    elif scheme(urls[0]) == "rediss" and setting != "result_backend":
        options.update(ssl_cert_reqs="none")  # as Celery does for a broker, and warns about it
    if scheme(urls[0]) != SENTINEL:
        return Source(setting, urls[0], options, tls)
    found = conf.get(transport) or {}
    options.update({SENTINEL_OPTIONS[name]: found[name] for name in SENTINEL_OPTIONS if name in found})
    sentinels = ";".join(url for url in urls if scheme(url) == SENTINEL)
    return Source(setting, sentinels, options, tls, transport)
