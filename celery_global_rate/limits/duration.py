"""Lengths of time, as operators write and read them."""

from __future__ import annotations

import re

US_PER_S = 1_000_000
UNITS_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}
LONGEST_S = 10 * 365 * 86400


def format_duration(seconds: float) -> str:
    """A length of time in one unit, as `3 h` or `12 s`, rounded: of 15 minutes, 15 are left a moment later."""
    for unit, unit_s in UNITS_S.items():
        if round(seconds) >= 2 * unit_s or unit == "s":
            return f"{max(0, round(seconds / unit_s))} {unit}"
    raise AssertionError


def parse(text: str) -> float:
    """Seconds from `90`, `90s`, `15m`, `2h`, `1d` or several of these, as `1h30m`.

    Raises:
        ValueError: it is none.
    """
    parts = re.findall(r"(\d+)([dhms]?)", text)
    seconds = sum(int(count) * UNITS_S[unit or "s"] for count, unit in parts)
    if "".join(map("".join, parts)) != text.strip() or not 0 < seconds <= LONGEST_S:
        raise ValueError(f"{text!r} is not a valid duration: use for example 90s, 15m, 2h, 1d or 1h30m")
    return float(seconds)
