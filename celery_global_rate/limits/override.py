"""What an operator has set for a bucket: another limit, the declared one again, a pause."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .limit import AS_OVERRIDE, LARGEST_BURST, LARGEST_QUOTA, LONGEST_FILL_US, PS_PER_US, Limit, Limits, spelled
from .redis_clock import LAST_US
from .refills import Refills
from .windows import Sliding, Window
from .windows import read as read_window

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


def window_key(limit: Limit) -> str:
    """What tells the windows of a limit from others; empty if it is smooth."""
    return limit.window.key if limit.window else ""


@dataclass(frozen=True)
class LimitOverride:
    """Limits that take precedence over the declared ones.

    Attributes:
        limits: one for each that is declared, in that order; none for no limit.
        rate: as it was set; `declared` if the declared limit is in force again.
        until_us: when it ends, on the Redis clock, epoch us; None if it does not end by itself.
        declared: what the task declared when it was set.
        replaced: the overriding rate that was in force before, or `declared`.
        origin: who set it.
    """

    limits: Limits
    rate: str
    until_us: int | None
    declared: str
    replaced: str
    origin: Origin

    def misfit(self, declared: Limits) -> str:
        """Why it cannot take the place of what is declared, which a deploy may have changed; empty if it can."""
        if not self.limits:
            return ""
        if len(self.limits) != max(1, len(declared)):
            return "another number of limits"
        keys = [window_key(limit) for limit in declared] or [""]
        return "" if [window_key(limit) for limit in self.limits] == keys else "another window"

    def fits(self, declared: Limits) -> bool:
        """Whether it has a limit for each one that is declared, in the same window."""
        return not self.misfit(declared)

    @classmethod
    def of(cls, entry: dict[str, Any]) -> LimitOverride:
        """Read it from a part of an override."""
        columns = [str(entry[key]).split(",") for key in ("us", "ps", "burst")] if "us" in entry else [[], [], []]
        columns.append(str(entry["window"]).split(",") if "window" in entry else [""] * len(columns[0]))
        if len({len(column) for column in columns}) > 1:
            raise ValueError("its limits are not complete")
        until = entry.get("until")
        return cls(
            tuple(_limit(*row) for row in zip(*columns)),
            str(entry["rate"]),
            _whole(until) if until else None,
            str(entry.get("declared", "")),
            str(entry.get("replaced", "")),
            Origin.of(entry),
        )


def _limit(us: str, ps: str, burst: str, window: str) -> Limit:
    interval_us = _whole(us, LONGEST_FILL_US)
    interval_ps = _whole(ps, PS_PER_US - 1, least=0 if interval_us else 1)
    most = LARGEST_QUOTA if window else LARGEST_BURST
    return Limit(interval_us, interval_ps, _whole(burst, most, least=1), read_window(window))


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
        except RecursionError:  # thousands of brackets
            raise ValueError("it is nested too deeply") from None

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

    def limits_at(self, now_us: float, declared: Limits) -> Limits:
        """The limits in force at an instant of the Redis clock (epoch us)."""
        limit_override = self.limit_override_at(now_us)
        return limit_override.limits if limit_override and limit_override.fits(declared) else declared


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
    if _is_nothing(rate):
        return None, "none"
    limit = Limit.parse(rate, burst, AS_OVERRIDE)
    return limit, str(limit) if limit else "none"


def _is_nothing(rate: object) -> bool:
    return rate is None or rate == 0 or (isinstance(rate, str) and rate.strip().lower() in NO_LIMIT)


@dataclass(frozen=True)
class Kept:
    """What of a limit stays as it is declared when an operator sets another rate.

    Attributes:
        burst: slots in a full bucket, or None for 1. Not of fixed or sliding windows: their rate says it.
        window: the windows of a quota; None for a smooth limit.
    """

    burst: int | None = None
    window: Window | None = None

    @classmethod
    def of(cls, declared: Limit) -> Kept:
        """Of a declared limit."""
        return cls(declared.burst, declared.window)


def parse_rates(rates: object, kept: Sequence[Kept]) -> tuple[Limits, str]:
    """Read rates as operators write them: as many as are declared, in that order, with commas between them.

    Args:
        rates: `"20/s,2000/h"`, or what `parse_rate` takes if there is one.
        kept: what stays of each declared limit.

    Returns:
        The limits, and the rates as an override spells them.

    Raises:
        ValueError: a rate is invalid, or there are too few or too many.
    """
    parts = [part.strip() for part in rates.split(",")] if isinstance(rates, str) and len(kept) > 1 else [rates]
    found = (_parse_kept(part, it) for part, it in zip(parts, kept))
    limits = tuple(limit for limit in found if limit)
    if (limits and len(limits) != len(kept)) or len(parts) > len(kept):
        raise ValueError(f"{rates!r:.80}: {len(kept)} rates are declared: write as many, or none for no limit")
    return limits, spelled(limits)


def _parse_kept(rate: object, kept: Kept) -> Limit | None:
    """One rate as operators write it, in the declared windows if it is a quota."""
    window = kept.window
    if window is None or _is_nothing(rate):
        return parse_rate(rate, kept.burst)[0]
    if isinstance(window, Refills):
        return Limit.of_amount(rate, window, kept.burst or 1)
    limit = Limit.in_any(rate) if isinstance(window, Sliding) else Limit.in_windows(rate)
    if limit.window is None or limit.window.period != window.period:
        raise ValueError(
            f"rate {rate!r:.80} has another period than the declared {window.kind} window: use N/{window.period}, "
            f"or change global_rate_buckets"
        )
    if isinstance(window, Sliding):
        return limit
    return Limit.in_windows(rate, window.offset_s or None, window.timezone or None)


def set_limits(limits: Limits, rate: str, declared: Limits, until_us: int | None = None) -> dict[str, Any]:
    """The change that puts limits in force, for `set_override.lua`."""
    entry = {"rate": rate, "declared": spelled(declared)}
    if limits:
        us, ps, bursts = zip(*((limit.interval_us, limit.interval_ps, limit.burst) for limit in limits))
        entry.update(us=_listed(us), ps=_listed(ps), burst=_listed(bursts))
        if any(limit.window for limit in limits):
            entry["window"] = _listed(limit.window.text if limit.window else "" for limit in limits)
    if until_us is not None:
        entry["until"] = str(until_us)
    return {"what": "set", "limit": entry}


def _listed(parts: Iterable[int | str]) -> str:
    return ",".join(map(str, parts))


def reset(declared: Limits) -> dict[str, Any]:
    """The change that puts the declared limits in force again."""
    return {"what": "reset", "limit": {"rate": DECLARED, "declared": spelled(declared)}}


def pause(until_us: int | None = None) -> dict[str, Any]:
    """The change that lets nothing start, until an instant of the Redis clock (epoch us) or a `resume`."""
    return {"what": "pause"} | ({} if until_us is None else {"until": str(until_us)})


RESUME = {"what": "resume"}
