"""Whether every worker has it on: what each reports, compared with the Redis and the prefix of the settings here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import ResponseError

from ..declared_limits import NOT_LIMITED, declared_limits, has_own_strategy
from ..limits.limit import spelled
from ..named_buckets import read_named_buckets
from ..settings import Settings
from ..storage.cause import cause
from ..storage.server_info import Server
from ..version import __version__

PINGS = 5


@dataclass(frozen=True)
class Reference:
    """What workers are compared with.

    Attributes:
        redis: the address, as logs may show it.
        database: its number.
        prefix: of all keys.
        server: what the Redis reports about itself.
        round_trip_s: the median of a few, in seconds.
        error: why the Redis does not answer, else None.
        digests: of the named buckets, by their names.
    """

    redis: str
    database: int
    prefix: str
    server: Server = field(default_factory=Server)
    round_trip_s: float = 0.0
    error: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def ask(cls, settings: Settings, digests: Mapping[str, str]) -> Reference:
        """Ask the Redis. That it does not answer is a result, too."""
        connection = settings.connection()
        known = (settings.address, settings.database, settings.key_prefix)

        def command(word: str) -> tuple[object, float]:
            sent = time.monotonic()
            connection.send_command(word)
            try:
                reply = connection.read_response()
            except ResponseError as exc:  # an ACL
                reply = exc
            return reply, time.monotonic() - sent

        try:
            connection.connect()
            server = Server.parse(command("INFO")[0])
            round_trip_s = statistics.median(command("PING")[1] for _ in range(PINGS))
        except Exception as exc:  # whatever it is
            return cls(*known, error=cause(exc), digests=digests)
        finally:
            connection.disconnect()
        return cls(*known, server, round_trip_s, digests=digests)

    @property
    def keeps_limits(self) -> bool:
        """Whether limits can be kept there."""
        return self.error is None and self.server.keeps_limits

    def __str__(self) -> str:
        if self.error:
            return f"{self.redis} cannot be reached ({self.error})"
        return f"{self.redis}, {self.server}, round trip {self.round_trip_s * 1000:.1f} ms"

    def differences(self, stats: Mapping[str, Any]) -> list[str]:
        """How a worker differs, by its reply to `inspect stats`; empty if it is on and agrees."""
        entry = stats.get("global_rate")
        if entry is None:
            return ["off" if "error" not in stats else "unknown: it failed to answer, see its log"]
        found = []
        if entry.get("version") != __version__:
            found.append(f"another version: {entry.get('version', 'unknown')}")  # which may not say all of the rest
        if "run_id" in entry and not self._is_same_redis(entry):
            found.append(f"another Redis: {entry['redis']}")
        if "prefix" in entry and entry["prefix"] != self.prefix:
            found.append(f"another prefix: {entry['prefix']}")
        if different := sorted(_differing(self.digests, entry.get("buckets", {}))):
            found.append(f"another configuration of {', '.join(different)}: check global_rate_buckets")
        if entry.get("outage"):
            found.append(f"no answer from its Redis ({entry['outage']})")
        return found

    def _is_same_redis(self, entry: Mapping[str, Any]) -> bool:
        """One server may have several names. During an outage, the known identity may be outdated."""
        if entry["run_id"] and self.server.run_id and not entry["outage"]:
            return (entry["run_id"], entry["database"]) == (self.server.run_id, self.database)
        return bool(entry["redis"] == self.redis)


def _differing(here: Mapping[str, str], there: Mapping[str, str]) -> set[str]:
    """The named buckets that only one side has, or that differ."""
    return {name for name in {*here, *there} if here.get(name) != there.get(name)}


def ask_workers(app: Celery, timeout_s: float) -> list[tuple[str, dict[str, Any]]]:
    """The name of each worker that answers and its `inspect stats`, sorted. Two workers may have the same name.

    Workers that have it on are asked twice: the first request makes each check its Redis.

    Raises:
        kombu.exceptions.OperationalError: the broker cannot be reached.
    """

    def ask() -> list[tuple[str, dict[str, Any]]]:
        replies = app.control.broadcast("stats", reply=True, timeout=timeout_s) or []
        return [answer for reply in replies for answer in reply.items()]

    first = ask()
    second = ask() if any("global_rate" in stats for _, stats in first) else []
    again = {name for name, _ in second}
    return sorted(second + [(name, stats) for name, stats in first if name not in again], key=itemgetter(0))


def compare_workers(app: Celery, url: str | None, timeout_s: float) -> tuple[list[str], bool]:
    """Compare all workers that answer with the settings here.

    Args:
        app: the application.
        url: of the Redis, if the workers get it by `--global-rate-url`.
        timeout_s: how long to wait for an answer after the last one, in seconds.

    Returns:
        The lines for the operator, and whether all is as it should be.

    Raises:
        ImproperlyConfigured: a setting here is invalid.
    """
    digests = {name: bucket.digest for name, bucket in read_named_buckets(app.conf).items()}
    reference = Reference.ask(Settings.from_app(app, url), digests)
    here = [("Redis", str(reference)), ("prefix", reference.prefix)]
    here += [("warning", f"this Redis {warning}") for warning in reference.server.warnings]
    here += [("warning", warning) for warning in _unlimited(app)]
    try:
        answers = ask_workers(app, timeout_s)
    except OperationalError:
        verdict = f"No worker can be asked: the broker {app.connection().as_uri()} cannot be reached."
        return [*_aligned(here), "", verdict], False
    found = [(name, reference.differences(stats)) for name, stats in answers]
    differing = sum(bool(differences) for _, differences in found)
    if not answers:
        verdict = f"No worker has answered within {timeout_s:g} s."
    elif differing:
        verdict = f"{differing} of {len(answers)} workers differ: see above."
    elif not reference.keeps_limits:
        verdict = "All workers agree, but this Redis keeps no limits now."
    else:
        verdict = f"On in all workers that have answered ({len(answers)}), with one Redis and one prefix."
    workers = [(name, "; ".join(differences) or "on") for name, differences in found]
    lines = _aligned([*here, ("", ""), *workers, ("", "")])
    return [*lines, verdict], bool(answers) and not differing and reference.keeps_limits


def _unlimited(app: Celery) -> list[str]:
    """The tasks that declare a limit which does not apply."""
    app.loader.import_default_modules()
    app.finalize(auto=True)
    own = [name for name in sorted(app.tasks) if has_own_strategy(app.tasks[name])]
    declared = {name: declared_limits(app, app.tasks[name]) for name in own}
    return [f"{name} declares {spelled(it)} and is {NOT_LIMITED}" for name, it in declared.items() if it]


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {text}".rstrip() for name, text in rows]
