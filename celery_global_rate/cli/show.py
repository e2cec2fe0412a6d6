"""The picture of all limits: `global-rate show`."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kombu.exceptions import OperationalError

from ..declared_limits import NOT_LIMITED
from ..limits.duration import format_duration
from ..limits.limit import PERIODS_S, Limit
from ..limits.override import Origin, Override
from ..storage.blocking_store import State, Store
from .context import Desk

#: How long the slots are counted for the effective rate, in seconds.
SAMPLE_S = 1.0
WIDTH = 100


@dataclass(frozen=True)
class Row:
    """One bucket, as it is now.

    Attributes:
        name: of the bucket.
        facts: all there is, for programs.
        cells: what a person sees of it.
        note: who ordered what is in force, a pause, and queues that are put aside.
    """

    name: str
    facts: dict[str, Any]
    cells: tuple[str, ...]
    note: str


@dataclass
class Holding:
    """What all workers hold of a bucket.

    Attributes:
        tasks: how many.
        aside: how many of the workers have put a queue aside that they came from, by queue.
    """

    tasks: int = 0
    aside: Counter[str] = field(default_factory=Counter)


HEAD = ("TASK", "DECLARED", "IN FORCE", "SOURCE", "RATE", "HELD", "WAITING", "NEXT SLOT")


def rows(desk: Desk, store: Store, names: Sequence[str] | None, timeout_s: float) -> list[Row]:
    """Look at the buckets for a second.

    Args:
        desk: the application.
        store: where the limits are kept.
        names: the buckets; None for all that have a limit or a record.
        timeout_s: how long to wait for workers, in seconds; 0 does not ask them.
    """
    texts = store.overrides()
    chosen = desk.limited(texts) if names is None else names
    before, begin = store.states(chosen), time.monotonic()
    held = _held(desk.app, timeout_s) if timeout_s else None
    time.sleep(max(0.0, SAMPLE_S - (time.monotonic() - begin)))
    states, sampled_s, now_us = store.states(chosen), time.monotonic() - begin, store.now_us()
    found = []
    for name, state in states.items():
        override, problem = _read(texts.get(name))
        holds = None if held is None else held[name]
        row = _row(name, desk.declared(name), override, now_us, sampled_s, holds, before[name], state)
        if desk.is_unlimited(name):
            row = _unlimited(row)
        found.append(replace(row, note=problem) if problem else row)
    return found


def _read(text: bytes | None) -> tuple[Override | None, str]:
    try:
        return (Override.parse(text) if text else None), ""
    except ValueError as exc:
        return None, f"its record cannot be read ({exc}): nothing starts until `set` or `reset` writes another one"


def _held(app: Any, timeout_s: float) -> defaultdict[str, Holding] | None:
    """What workers hold, by bucket; None where the broker cannot be reached."""
    try:
        replies = app.control.broadcast("rate_held", reply=True, timeout=timeout_s) or []
    except (OperationalError, OSError):
        return None
    found: defaultdict[str, Holding] = defaultdict(Holding)
    for answer in (answer for reply in replies for answer in reply.values() if isinstance(answer, dict)):
        for name, entry in answer.items():
            if isinstance(entry, dict):
                found[name].tasks += entry["count"]
                found[name].aside.update(entry.get("queues_aside", ()))  # 0.2.0 has none
    return found


def _row(
    name: str,
    declared: Limit | None,
    override: Override | None,
    now_us: int,
    sampled_s: float,
    held: Holding | None,
    before: State,
    state: State,
) -> Row:
    limit_override = override.limit_override_at(now_us) if override else None
    pause = override.pause_at(now_us) if override else None
    limit = limit_override.limit if limit_override else declared
    rate = effective_rate(None if pause else limit, before, state, sampled_s)
    next_us = None
    if limit and state.last_us is not None:
        next_us = max(state.last_us + round(limit.interval_s * 1e6), now_us)
    if pause:
        next_us = pause.until_us
    notes = []
    if limit_override:
        notes.append(_note("", limit_override.origin, limit_override.until_us, now_us))
    if pause:
        notes.append(_note("paused ", pause.origin, pause.until_us, now_us))
    for queue, workers in sorted(held.aside.items()) if held else ():
        notes.append(f"queue {queue} is put aside by {workers} worker{'s' * (workers > 1)}: global_rate_max_held")
    facts = {
        "task": name,
        "declared": str(declared or "none"),
        "in_force": str(limit or "none"),
        "source": limit_override.origin.source if limit_override else "declared",
        "ordered": _origin(limit_override.origin, limit_override.until_us) if limit_override else None,
        "paused": _origin(pause.origin, pause.until_us) if pause else None,
        "rate_per_s": round(rate, 3),
        "held": held and held.tasks,
        "queues_aside": held and dict(held.aside),
        "waiting_workers": state.waiting,
        "next_slot_us": next_us,
    }
    in_s = (
        "now" if next_us is None or next_us < now_us + 1_000_000 else f"in {format_duration((next_us - now_us) / 1e6)}"
    )
    if pause and pause.until_us is None:
        in_s = "after resume"
    cells = (
        name,
        str(facts["declared"]),
        "paused" if pause else str(facts["in_force"]),
        "ordered" if limit_override else "declared",
        _per(rate),
        "?" if held is None else str(held.tasks),
        str(state.waiting),
        in_s,
    )
    return Row(name, facts, cells, "; ".join(notes))


def _unlimited(row: Row) -> Row:
    """The same for a task with its own strategy: nothing is in force."""
    cells = list(row.cells)
    cells[HEAD.index("IN FORCE")] = "none"
    return replace(row, facts={**row.facts, "in_force": "none"}, cells=tuple(cells), note=NOT_LIMITED)


def _per(rate: float) -> str:
    """A rate as one writes it: per second, or per minute or hour where that is less than one."""
    for period in "smh":
        count = rate * PERIODS_S[period]
        if count >= 1 or not rate:
            return f"{count:.1f}/{period}"
    return f"{rate * PERIODS_S['h']:.2f}/h"


def effective_rate(limit: Limit | None, before: State, after: State, sampled_s: float) -> float:
    """Slots per second between two looks at a bucket.

    Counted from slot to slot where they follow each other as the limit lets them: a second has one or two slots of
    100/m, and seldom one of 10/m.
    """
    given = max(0, after.given - before.given)
    if limit and after.last_us is not None and before.last_us is not None:
        between_s = (after.last_us - before.last_us) / 1e6
        if 0 < between_s <= 2 * given * limit.interval_s:
            return given / between_s
        if not given and after.waiting and limit.interval_s > sampled_s:
            return limit.per_second
    return given / sampled_s


def _note(what: str, origin: Origin, until_us: int | None, now_us: int) -> str:
    age = format_duration((now_us - origin.when_us) / 1e6)
    end = f", for another {format_duration((until_us - now_us) / 1e6)}" if until_us else ""
    why = f": {origin.reason}" if origin.reason else ""
    return f"{what}{age} ago by {origin.by or 'nobody'}{end}{why}"


def _origin(origin: Origin, until_us: int | None) -> dict[str, Any]:
    return {
        "by": origin.by,
        "source": origin.source,
        "reason": origin.reason,
        "when_us": origin.when_us,
        "until_us": until_us,
    }


def told(override: Override, now_us: int) -> dict[str, Any]:
    """A change, for programs."""
    limit_override = override.limit_override if override.what in ("set", "reset") else None
    return {
        "what": override.what,
        "rate": limit_override.rate if limit_override else None,
        "replaced": limit_override.replaced if limit_override else None,
        "version": override.version,
        "age_s": round((now_us - override.origin.when_us) / 1e6),
        **_origin(
            override.origin,
            limit_override.until_us if limit_override else override.pause.until_us if override.pause else None,
        ),
    }


def table(found: Sequence[Row]) -> list[str]:
    """Lines of at most 100 columns. Long names lose their middle, long notes their end."""
    if not found:
        return ["no task has a limit or an override"]
    cells = [HEAD, *(row.cells for row in found)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    widths[0] = max(10, min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(HEAD) - 1)))
    lines = [_line(HEAD, widths)]
    for row in found:
        lines.append(_line(row.cells, widths))
        if row.note:
            note = f"  {row.note}"
            lines.append(note if len(note) <= WIDTH else note[: WIDTH - 3] + "...")
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    parts = [_cut(cell, width).ljust(width) for cell, width in zip(cells, widths)]
    return "  ".join(parts).rstrip()[:WIDTH]


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    tail = (width - 3) * 2 // 3
    return f"{text[: width - 3 - tail]}...{text[-tail:]}"
