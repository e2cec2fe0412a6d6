"""How a Redis is named: by one URL, or by the URLs of Sentinels or of nodes of a Cluster."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

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
CLUSTER, CLUSTER_TLS = CLUSTERS = ("redis+cluster", "rediss+cluster")
#: Parameters that belong to the address: a database, and the name of a master.
IDENTITY = ("db=", "service_name=")

EXAMPLE = "redis://localhost:6379/0"


def split(text: str) -> list[str]:
    """The URLs in a text that has `;` between them. A `;` in a password stays where it is."""
    return [url for url in re.split(r";(?=[a-zA-Z+]+://|$)", text) if url]


def scheme(url: str) -> str:
    """What comes before `://`, in small letters."""
    return url.partition("://")[0].lower()


def spelled(url: object, setting: str) -> str:
    """A URL, or those of Sentinels or of nodes of a Cluster with `;` between them, as redis-py spells them.

    Args:
        url: the value of a setting or an option.
        setting: its name, for errors.

    Raises:
        ValueError: it names no server that can be used.
    """
    text = url if isinstance(url, str) else ""
    urls = split(text)
    if not urls or not all("://" in part for part in urls):
        raise ValueError(f"{setting} is not a URL: write it like {EXAMPLE}")
    for part in urls:
        _require_known(part, setting)
    _require_one_kind(urls, setting)
    plain = ";".join(map(_in_redis_py, urls))
    if not all(map(_is_readable, split(plain))):
        raise ValueError(
            f"{setting} = {redacted(plain)}: check its host, port and database, each of the two a number, "
            f"as in {EXAMPLE}"
        )
    return plain


def _require_known(url: str, setting: str) -> None:
    name, rest = scheme(url), url.split("://", 1)[1]
    known = (*SCHEMES, SENTINEL, *CLUSTERS)
    if name not in known:
        raise ValueError(f"{setting} = {name}://...: use one of {', '.join(known)}")
    if set(rest.rpartition("@")[0]) & set("/?#@"):
        raise ValueError(f"{setting}: its password has one of / ? # @ in it: write %2F, %3F, %23 or %40 instead")


def _require_one_kind(urls: Sequence[str], setting: str) -> None:
    hosts = [url.split("://", 1)[1].rpartition("@")[2].partition("/")[0] for url in urls]
    are_of_one_kind = len(urls) == 1 or {*map(scheme, urls)} in ({SENTINEL}, {CLUSTER}, {CLUSTER_TLS})
    if not are_of_one_kind or any(";" in host for host in hosts):
        raise ValueError(
            f"{setting} = {redacted(';'.join(urls))}: name one Redis, or several Sentinels, each as "
            f"sentinel://host:port, or several nodes of a Cluster, each as {CLUSTER}://host:port"
        )


def _is_readable(url: str) -> bool:
    """Whether host, port and database are what they must be."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (may raise)
    except ValueError:
        return False
    return scheme(url) == "unix" or re.fullmatch(r"/?\d*", parts.path) is not None


def _in_redis_py(url: str) -> str:
    """Celery and redis-py spell two options and some schemes differently, and Celery is not strict on databases."""
    name = SCHEMES.get(scheme(url), scheme(url))
    place, mark, query = url.split("://", 1)[1].partition("?")
    query = re.sub(r"ssl_cert_reqs=CERT_(\w+)", lambda option: f"ssl_cert_reqs={option[1].lower()}", query)
    if name != "unix":
        place, _, path = place.partition("/")
        database = unquote(path).strip("/")
        place += f"/{database}" if database else ""
    return f"{name}://{place}{mark}{query.replace('virtual_host=', 'db=')}"


def taken_out(urls: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """URLs without some of their parameters, and the first value of each that they had."""
    found: dict[str, str] = {}
    parts = []
    for url in split(urls):
        place, _, query = url.partition("?")
        kept = []
        for pair in filter(None, query.split("&")):
            name, _, value = pair.partition("=")
            if name in names:
                found.setdefault(name, unquote(value))
            else:
                kept.append(pair)
        parts.append("?".join(filter(None, (place, "&".join(kept)))))
    return ";".join(parts), found


def without_user(urls: str) -> str:
    """URLs without user and password."""
    return ";".join(re.sub(r"://[^/?]*@", "://", url) for url in split(urls))


def hosts(urls: str, port: int) -> list[tuple[str, int]]:
    """The hosts and ports of several servers; `port` if a URL has none."""
    parts = map(urlsplit, split(urls))
    return [(part.hostname or "localhost", part.port or port) for part in parts]


def without_hosts(urls: str) -> str:
    """One URL with the user, the database and the parameters of several. They may stand in any; the first counts."""
    parts = [urlsplit(url) for url in split(urls)]
    user = next((part.netloc.rpartition("@")[0] for part in parts if "@" in part.netloc), "")
    path = next((part.path for part in parts if part.path.strip("/")), "")
    query = urlencode([pair for part in parts for pair in parse_qs(part.query).items()], doseq=True)
    return f"redis://{user}@{path}?{query}"


def redacted(url: str) -> str:
    """The servers as logs may show them: without user, password and options."""
    parts = []
    for part in split(url):
        name, _, rest = part.partition("://")
        place, _, query = rest.rpartition("@")[2].partition("?")
        kept = "&".join(pair for pair in query.split("&") if pair.startswith(IDENTITY))
        parts.append(f"{name}://{place}" + (f"?{kept}" if kept else ""))
    return ";".join(parts)
