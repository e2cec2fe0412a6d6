"""The rates of a named bucket, as people write them: one or several, each smooth or with its window, or refills."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from .limit import AS_BUCKET, Limit, Limits
from .refills import Refills

FIELDS = ("rate", "burst", "window", "offset", "timezone", "amount", "maximum")
#: How starts are counted against a rate: spread out, the default; from one edge of a calendar to the next; or in any
#: period of that length. Or a crontab: so many at each of its instants.
SMOOTH, FIXED, SLIDING = WINDOWS = "smooth", "fixed", "sliding"
CRONTAB = Refills.kind
#: Where those belong that stand beside a rate, and not in it.
_REFILLS = "'window': crontab(minute=0), 'amount': 1000, 'maximum': 1000"
_FIXED_RATE = "'rate': '10000/d', 'window': 'fixed'"
EXAMPLES = {
    "burst": "'rate': '10/s', 'burst': 20",
    "window": _FIXED_RATE,
    "offset": f"{_FIXED_RATE}, 'offset': '9h'",
    "timezone": f"{_FIXED_RATE}, 'timezone': 'America/Los_Angeles'",
    "amount": _REFILLS,
    "maximum": _REFILLS,
}
#: The name of a bucket that is not that of a task.
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: The most limits of one named bucket.
MOST_LIMITS = 4


def read_rates(place: str, rates: object, zone: str) -> Limits:
    """One rate or several: a text, or a dictionary with `rate` and what belongs to it, or a list of such.

    Args:
        place: what has them, for errors.
        rates: as they are written.
        zone: the time zone in which crontabs are meant that name none, as beat does; empty if there is none.

    Raises:
        ValueError: they cannot be meant; the text names the place, the field, its value and the remedy.
    """
    written = list(rates) if isinstance(rates, (list, tuple)) else [rates]
    if not written or len(written) > MOST_LIMITS:
        raise invalid(place, "rate", rates, f"use one rate, or a list of up to {MOST_LIMITS}")
    limits = tuple(_limit(place, rate, zone) for rate in written)
    for number, limit in enumerate(limits):
        for other in limits[:number] + limits[number + 1 :]:
            if other.has_no_effect_beside(limit):
                raise invalid(
                    place, "rate", rates, f"{other} has no effect beside {limit}, which is never faster: leave it out"
                )
    quotas = {limit.window.key: limit for limit in limits if limit.window}
    for limit in limits:
        if limit.window and (other := quotas[limit.window.key]) is not limit:
            raise invalid(place, "rate", rates, f"{other} and {limit} are the same refills: keep one of them")
    return limits


def _limit(place: str, rate: object, zone: str) -> Limit:
    fields = rate if isinstance(rate, Mapping) else {"rate": rate}
    refuse_unknown(place, fields, FIELDS, "rate")
    window = _window(place, fields)
    written = fields.get("rate")
    if window != FIXED and isinstance(written, str) and written.endswith("month"):
        raise invalid(place, "rate", written, "months differ in length: add 'window': 'fixed', or use N/d")
    try:
        if window == CRONTAB:
            meant_in = fields.get("timezone") or zone
            if not meant_in:
                raise ValueError(
                    "a crontab needs one time zone for all workers: add 'timezone', as enable_utc is False and the "
                    "application has none"
                )
            return Limit.refilled(fields["window"], fields.get("amount"), fields.get("maximum"), meant_in)
        if window == FIXED and written is not None:
            return Limit.in_windows(written, fields.get("offset"), fields.get("timezone"))
        if window == SLIDING and written is not None:
            return Limit.in_any(written)
        limit = Limit.parse(written, fields.get("burst"), AS_BUCKET)
    except ValueError as exc:
        raise ValueError(f"{place}: rate: {exc}") from None
    if limit is None:
        raise invalid(place, "rate", rate, "a bucket without a limit has no effect: use N/s, N/m, N/h, N/d or N/30s")
    return limit


def _window(place: str, fields: Mapping[Any, Any]) -> str:
    """How starts are counted against a rate, after a check that its other fields are for such a window."""
    window = fields.get("window")
    if Refills.is_crontab(window):
        window = CRONTAB
    elif window is not None and window not in WINDOWS:
        close = get_close_matches(str(window), WINDOWS, 1)
        remedy = f"did you mean {close[0]!r}?" if close else f"use {listed(WINDOWS, ' or ')}, or a crontab"
        raise invalid(place, "rate: window", window, remedy)
    window = window or SMOOTH
    misplaced = {}
    if window != SMOOTH:
        misplaced["burst"] = f"all N of a {window} window may start at once: leave it out"
    if window != FIXED:
        misplaced["offset"] = misplaced["timezone"] = "it is for fixed windows: add 'window': 'fixed'"
    if window == CRONTAB:
        misplaced["burst"] = "what comes by a crontab may start at once, up to the maximum: leave it out"
        misplaced["rate"] = "a crontab has an amount and a maximum instead: leave it out"
        del misplaced["timezone"]
    else:
        misplaced["amount"] = misplaced["maximum"] = f"it is for refills by a crontab: {{{_REFILLS}}}"
    for field, remedy in misplaced.items():
        if fields.get(field) is not None:
            raise invalid(place, "rate" if field == "rate" else f"rate: {field}", fields[field], remedy)
    return str(window)


def window_keys(limits: Limits) -> tuple[str, ...]:
    """The part of the key of each limit, in their order: a quota by its windows, the others by their interval.

    The shortest interval comes first. A rate may then move within the list, or change a little, and keeps its state.
    """
    by_interval = sorted((it for it in limits if it.window is None), key=lambda limit: limit.exact_ps)

    def window(limit: Limit) -> str:
        if limit.window is not None:
            return limit.window.key
        place = by_interval.index(limit) + 1
        return f"{SMOOTH}{place if place > 1 else ''}"

    return tuple(map(window, limits))


def refuse_unknown(place: str, entry: Mapping[Any, Any], fields: Iterable[str], within: str = "") -> None:
    """Refuse a field that is none of these.

    Args:
        place: what has the entry, for errors.
        entry: a dictionary.
        fields: those that it may have.
        within: the field of which the entry is the value, if any.

    Raises:
        ValueError: there is one; the text names it and the remedy.
    """
    for field in entry:
        if field not in fields:
            close = get_close_matches(str(field), fields, 1)
            remedy = f"did you mean {close[0]!r}?" if close else f"use {listed(fields)}"
            if field in EXAMPLES:
                remedy = f"it belongs to a rate, as in 'rate': {{{EXAMPLES[field]}}}"
            inner = f"{within}: " if within else ""
            raise ValueError(f"{place}: {inner}{field!r:.80} is not a field of it: {remedy}")


def listed(fields: Iterable[str], separator: str = ", ") -> str:
    """Names, quoted, with this between them."""
    return separator.join(map(repr, fields))


def invalid(place: str, field: str, value: object, remedy: str) -> ValueError:
    """The error for a field whose value cannot be meant."""
    return ValueError(f"{place}: {field} = {value!r:.80}: {remedy}")
