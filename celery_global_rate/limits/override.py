"""What an operator has set for a bucket: another limit, the declared one again, a pause."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from .limit import AS_OVERRIDE, LARGEST_BURST, LONGEST_FILL_US, PS_PER_US, Limit
from .redis_clock import LAST_US

#: How operators say that there is no limit. Celery takes 0 and an empty text.
NO_LIMIT = ("", "0", "none")
DECLARED = "declared"
#: The longest reason, and the longest override with all that is in it, in characters. Workers send it in every call.
LONGEST_REASON = 500
LONGEST = 20_000

_TEXT = re.compile(r"(\d+):(\w+):(\d+):(\{.*)", re.DOTALL)


def _line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _whole(value: Any, most: int = LAST_US, least: int = 0) -> int:
    number = -1 if value in (math.inf, -math.inf) else int(value)
    if not least <= number <= most:
        raise ValueError("a number is out of range")
    return number


@dataclass(frozen=True)
class Origin:
    """Who changed something, when, and why.

    Attributes:
        when_us: on the Redis clock, epoch us.
        by: who.
        source: the command.
        reason: why, or an empty text.
    """

    when_us: int
    by: str
    source: str
    reason: str

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Origin:
        """Read it from a part of an override. Whatever somebody has written, it fits into a line of a log."""
        return cls(_whole(entry["when"]), *(_line(str(entry.get(key, ""))) for key in ("by", "source", "reason")))


@dataclass(frozen=True)
class LimitOverride:
    """A limit that takes precedence over the declared one.

    Attributes:
        limit: the limit, or None for no limit.
        rate: as it was set; `declared` if the declared limit is in force again.
        until_us: when it ends, on the Redis clock, epoch us; None if it does not end by itself.
        declared: what the task declared when it was set.
        replaced: the overriding rate that was in force before, or `declared`.
        origin: who set it.
    """

    limit: Limit | None
    rate: str
    until_us: int | None
    declared: str
    replaced: str
    origin: Origin

    @classmethod
    def of(cls, entry: dict[str, Any]) -> LimitOverride:
        """Read it from a part of an override."""
        limit = None
        if "us" in entry:
            us = _whole(entry["us"], LONGEST_FILL_US)
            ps = _whole(entry["ps"], PS_PER_US - 1, least=0 if us else 1)
            limit = Limit(us, ps, _whole(entry["burst"], LARGEST_BURST, least=1))
        until = entry.get("until")
        return cls(
            limit,
            str(entry["rate"]),
            _whole(until) if until else None,
            str(entry.get("declared", "")),
            str(entry.get("replaced", "")),
            Origin.of(entry),
        )


@dataclass(frozen=True)
class Pause:
    """A time without starts.

    Attributes:
        until_us: when it ends, on the Redis clock, epoch us; None if somebody has to end it.
        origin: who set it.
    """

    until_us: int | None
    origin: Origin


@dataclass(frozen=True)
class Override:
    """All that operators have set for a bucket. The higher version counts; of equal versions, the higher id.

    Attributes:
        text: as Redis keeps it.
        version: grows with each change.
        id: of the change that made it.
        floor_us: before it, on the Redis clock (epoch us), the bucket has no slot.
        what: the change: `set`, `reset`, `pause` or `resume`.
        origin: who made that change.
        limit_override: a limit, or None if none was ever set.
        pause: a pause, which may be over; or None.
    """

    text: str = field(repr=False)
    version: int
    id: str
    floor_us: int
    what: str
    origin: Origin
    limit_override: LimitOverride | None
    pause: Pause | None

    @classmethod
    def parse(cls, text: str | bytes) -> Override:
        """Read one as Redis keeps it.

        Raises:
            ValueError: it cannot be read.
        """
        if len(text) > LONGEST:
            raise ValueError(f"it has {len(text)} characters")
        text = text.decode() if isinstance(text, bytes) else text
        parts = _TEXT.fullmatch(text)
        if parts is None:
            raise ValueError("it does not begin with version, id and floor")
        try:
            content = json.loads(parts[4])
            limit_override, pause = content.get("limit"), content.get("pause")
            return cls(
                text,
                _whole(parts[1]),
                parts[2],
                _whole(parts[3]),
                str(content["what"]),
                Origin.of(content),
                LimitOverride.of(limit_override) if limit_override else None,
                Pause(_whole(pause["until"]) if pause.get("until") else None, Origin.of(pause)) if pause else None,
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"it lacks {exc}") from None

    @property
    def rank(self) -> tuple[int, str]:
        """Higher is newer."""
        return self.version, self.id

    def limit_override_at(self, now_us: float) -> LimitOverride | None:
        """The overriding limit in force at an instant of the Redis clock (epoch us); None if the declared one is."""
        limit_override = self.limit_override
        if (
            limit_override is None
            or limit_override.rate == DECLARED
            or (limit_override.until_us is not None and limit_override.until_us <= now_us)
        ):
            return None
        return limit_override

    def pause_at(self, now_us: float) -> Pause | None:
        """The pause of an instant of the Redis clock (epoch us), or None."""
        pause = self.pause
        return pause if pause and (pause.until_us is None or pause.until_us > now_us) else None

    def limit_at(self, now_us: float, declared: Limit | None) -> Limit | None:
        """The limit in force at an instant of the Redis clock (epoch us)."""
        limit_override = self.limit_override_at(now_us)
        return limit_override.limit if limit_override else declared


def parse_rate(rate: object, burst: int | None = None) -> tuple[Limit | None, str]:
    """Read a rate as operators write it: also per day, and `none`.

    Args:
        rate: `"100/m"`, a number of starts per second, or `none`, 0 or an empty text for no limit.
        burst: slots in a full bucket, or None for 1.

    Returns:
        The limit, and the rate as an override spells it.

    Raises:
        ValueError: the rate is invalid.
    """
    if rate is None or (isinstance(rate, str) and rate.strip().lower() in NO_LIMIT):
        return None, "none"
    limit = Limit.parse(rate, burst, AS_OVERRIDE)
    return limit, str(limit) if limit else "none"


def set_limit(limit: Limit | None, rate: str, declared: Limit | None, until_us: int | None = None) -> dict[str, Any]:
    """The change that puts a limit in force, for `set_override.lua`."""
    entry = {"rate": rate, "declared": str(declared or "none")}
    if limit:
        entry.update(us=str(limit.interval_us), ps=str(limit.interval_ps), burst=str(limit.burst))
    if until_us is not None:
        entry["until"] = str(until_us)
    return {"what": "set", "limit": entry}


def reset(declared: Limit | None) -> dict[str, Any]:
    """The change that puts the declared limit in force again."""
    return {"what": "reset", "limit": {"rate": DECLARED, "declared": str(declared or "none")}}


def pause(until_us: int | None = None) -> dict[str, Any]:
    """The change that lets nothing start, until an instant of the Redis clock (epoch us) or a `resume`."""
    return {"what": "pause"} | ({} if until_us is None else {"until": str(until_us)})


RESUME = {"what": "resume"}
