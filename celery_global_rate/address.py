"""How a Redis is named: by one URL, or by the URLs of the Sentinels that know it."""

from __future__ import annotations

import re

from celery.exceptions import ImproperlyConfigured

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
SENTINEL = "sentinel"
#: Parameters that belong to the address: a database, and what Sentinels call a master.
IDENTITY = ("db=", "service_name=")

EXAMPLE = "redis://localhost:6379/0"


def split(text: str) -> list[str]:
    """The URLs in a text that has `;` between them. A `;` in a password stays where it is."""
    return [url for url in re.split(r";(?=[a-z+]+://|$)", text) if url]


def scheme(url: str) -> str:
    """What comes before `://`."""
    return url.partition("://")[0]


def spelled(url: object, setting: str) -> str:
    """A URL, or the URLs of Sentinels with `;` between them, as redis-py spells them.

    Args:
        url: the value of a setting or an option.
        setting: its name, for errors.

    Raises:
        ImproperlyConfigured: it names no server that can be used.
    """
    text = url if isinstance(url, str) else ""
    urls = split(text)
    if not urls or not all("://" in part for part in urls):
        raise ImproperlyConfigured(f"{setting} is not a URL: write it like {EXAMPLE}")
    for part in urls:
        name, rest = part.split("://", 1)
        if "cluster" in name:
            raise ImproperlyConfigured(
                f"{setting} = {name}://...: Redis Cluster is not supported yet: use a single Redis, or Sentinel"
            )
        if name != SENTINEL and name not in SCHEMES:
            raise ImproperlyConfigured(f"{setting} = {name}://...: use one of {', '.join((*SCHEMES, SENTINEL))}")
        if set(rest.rpartition("@")[0]) & set("/?#@"):
            raise ImproperlyConfigured(
                f"{setting}: its password has one of / ? # @ in it: write %2F, %3F, %23 or %40 instead"
            )
    hosts = [part.split("://", 1)[1].rpartition("@")[2].partition("/")[0] for part in urls]
    if any(";" in host for host in hosts) or (len(urls) > 1 and {*map(scheme, urls)} != {SENTINEL}):
        raise ImproperlyConfigured(
            f"{setting} = {shown(text)}: name one Redis, or several Sentinels, each as sentinel://host:port"
        )
    return ";".join(map(_in_redis_py, urls))


def _in_redis_py(url: str) -> str:
    """Celery and redis-py spell two options and some schemes differently."""
    name, rest = url.split("://", 1)
    rest = re.sub(r"ssl_cert_reqs=CERT_(\w+)", lambda option: f"ssl_cert_reqs={option[1].lower()}", rest)
    return f"{SCHEMES.get(name, name)}://{rest.replace('virtual_host=', 'db=')}"


def shown(url: str) -> str:
    """The servers as logs may show them: without user, password and options, but with what tells one from another."""
    parts = []
    for part in split(url):
        name, _, rest = part.partition("://")
        place, _, query = rest.rpartition("@")[2].partition("?")
        kept = "&".join(pair for pair in query.split("&") if pair.startswith(IDENTITY))
        parts.append(f"{name}://{place}" + (f"?{kept}" if kept else ""))
    return ";".join(parts)
