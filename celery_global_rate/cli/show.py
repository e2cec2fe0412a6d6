"""The table of all limits: `global-rate show`. A new column is one more of `COLUMNS`."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kombu.exceptions import OperationalError

from ..declared_limits import NOT_LIMITED
from ..limits.duration import format_duration
from ..limits.limit import PERIODS_S, Limit, Limits, spelled
from ..limits.override import LimitOverride, Origin, Override, Pause
from ..limits.refills import Refills
from ..limits.windows import Calendar
from ..storage.blocking_store import BlockingStore, State
from .context import Context

#: How long the slots are counted for the effective rate, in seconds.
SAMPLE_S = 1.0
WIDTH = 100


@dataclass
class Holding:
    """What all workers hold of a bucket.

    Attributes:
        tasks: how many.
        aside: how many of the workers have put a queue aside that they came from, by queue.
    """

    tasks: int = 0
    aside: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Quota:
    """What is used of the present window of a limit.

    Attributes:
        limit: so many slots in each window.
        used: slots that are booked.
        more_us: when there are more, epoch us: a fixed window ends, the oldest slot leaves a sliding one, or tokens
            come.
    """

    limit: Limit
    used: int
    more_us: int

    @classmethod
    def of(cls, limit: Limit, state: State, now_us: int) -> Quota:
        """By the state of its bucket."""
        if isinstance(limit.window, Calendar):
            begin_us, end_us, _ = limit.window.edges(now_us)
            return cls(limit, state.used.get(begin_us, 0), end_us)
        if isinstance(limit.window, Refills):
            edges = limit.window.edges(now_us, limit.burst + limit.most_owed)
            left, edge_us, ahead = state.tokens or (limit.burst, now_us, 0)
            for us in edges.past:
                if us > edge_us:
                    left, ahead = min(limit.burst, left + limit.window.amount) - ahead, 0
            return cls(limit, limit.burst - left, edges.next_us[0])
        alive = [(us + limit.span_us, slots) for us, slots in state.log if us + limit.span_us > now_us]
        return cls(limit, sum(slots for _, slots in alive), alive[0][0] if alive else now_us)

    @property
    def facts(self) -> dict[str, int]:
        """For programs."""
        return {"used": self.used, "most": self.limit.burst, "more_us": self.more_us}

    @property
    def next_us(self) -> int:
        """From when on there is a slot, epoch us."""
        return self.more_us if self.used >= self.limit.burst else 0

    def spelled(self, now_us: int) -> str:
        """For people."""
        assert self.limit.window is not None
        window = f"in the last {self.limit.window.period}"
        if isinstance(self.limit.window, Calendar):
            window = f"of this window, which ends in {format_duration((self.more_us - now_us) / 1e6)}"
        if isinstance(self.limit.window, Refills):
            more = f"{self.limit.window.amount} more in {format_duration((self.more_us - now_us) / 1e6)}"
            return f"{self.limit.burst - self.used} of {self.limit.burst} left, {more}"
        return f"{self.used} of {self.limit.burst} used {window}"


@dataclass(frozen=True)
class Look:
    """What was found about one bucket.

    Attributes:
        name: of the task or named bucket.
        declared: what it declares.
        limit_override: an operator's limit that is in force, or None.
        pause: one that is in force, or None.
        held: what workers hold; None if it is not known.
        before, states: in Redis, twice, for each limit.
        sampled_s: the time between, in seconds.
        now_us: the Redis clock the second time, epoch us.
        is_unlimited: whether the task has its own strategy, so that nothing is in force.
        problem: why its override cannot be read; empty if it can.
        is_any: whether it has a bucket for each value of its key, and none of them is meant.
        cost: of a named bucket, if it has one.
    """

    name: str
    declared: Limits
    limit_override: LimitOverride | None
    pause: Pause | None
    held: Holding | None
    before: Sequence[State]
    states: Sequence[State]
    sampled_s: float
    now_us: int
    is_unlimited: bool
    problem: str
    is_any: bool = False
    cost: int | str | None = None

    @property
    def in_force(self) -> str:
        """The limit in force, for people."""
        return spelled(() if self.is_unlimited else self._limits)

    @property
    def in_effect(self) -> str:
        """The same, or why nothing starts."""
        if self.is_unlimited or not (self.pause or self.off_us):
            return self.in_force
        return "paused" if self.pause else "backs off"

    @property
    def rate(self) -> float:
        """Slots per second, in units if they have a cost."""
        limit = self._limits[0] if len(self._limits) == 1 and not (self.pause or self.off_us) else None
        return effective_rate(limit, self.before[0], self.states[0], self.sampled_s)

    @property
    def off_us(self) -> int:
        """Until when an API has asked for a pause, epoch us; 0 if none has."""
        return max(state.off_us for state in self.states)

    @property
    def next_us(self) -> int | None:
        """The next slot on the Redis clock, epoch us; None if nothing is known of it."""
        if self.pause:
            return None if self.pause.until_us is None else max(self.pause.until_us, self.off_us)
        known = [
            state.last_us + round(limit.interval_s * 1e6)
            for state, limit in zip(self.states, self._limits)
            if state.last_us is not None
        ]
        known += [quota.next_us for quota in self.quotas]
        known += [self.off_us] if self.off_us else []
        return max(self.now_us, *known) if known else None

    @property
    def quotas(self) -> list[Quota]:
        """What is used of each limit that counts windows."""
        limits = () if self.is_unlimited else self._limits
        return [Quota.of(limit, state, self.now_us) for state, limit in zip(self.states, limits) if limit.window]

    @property
    def waiting(self) -> int:
        """Workers that wait: each does at the limit that binds."""
        return max(state.waiting for state in self.states)

    def of_one(self, fact: object) -> str:
        """A fact about one bucket, for people."""
        return "?" if self.is_any else str(fact)

    @property
    def next_slot(self) -> str:
        """The next slot, for people."""
        if self.pause and self.pause.until_us is None:
            return "after resume"
        in_s = 0.0 if self.next_us is None else (self.next_us - self.now_us) / 1e6
        return f"in {format_duration(in_s)}" if in_s >= 1 else "now"

    @property
    def note(self) -> str:
        """Who has changed what is in force, a pause, and queues that are put aside; or what is wrong."""
        if self.problem or self.is_unlimited:
            return self.problem or NOT_LIMITED
        notes = [] if self.cost is None else [f"cost {self.cost}: RATE counts units"]
        notes += [] if self.is_any else [quota.spelled(self.now_us) for quota in self.quotas]
        if self.limit_override:
            notes.append(_note("", self.limit_override, self.now_us))
        if self.pause:
            notes.append(_note("paused ", self.pause, self.now_us))
        if self.off_us:
            notes.append(f"backs off for another {format_duration((self.off_us - self.now_us) / 1e6)}: an API asked to")
        for queue, workers in sorted(self.held.aside.items()) if self.held else ():
            notes.append(f"queue {queue} is put aside by {workers} worker{'s' * (workers > 1)}: global_rate_max_held")
        return "; ".join(notes)

    @property
    def _limits(self) -> Limits:
        return self.limit_override.limits if self.limit_override else self.declared


@dataclass(frozen=True)
class Column:
    """A column of the table, and an entry of the JSON.

    Attributes:
        key: in the JSON.
        fact: the value there.
        head: of the column; without one it is in the JSON only.
        cell: what people see of it; by default the fact.
    """

    key: str
    fact: Callable[[Look], Any]
    head: str = ""
    cell: Callable[[Look], str] | None = None


COLUMNS = (
    Column("task", lambda it: it.name, "TASK"),
    Column("declared", lambda it: spelled(it.declared), "DECLARED"),
    Column("cost", lambda it: it.cost),
    Column(
        "in_force",
        lambda it: it.in_force,
        "IN FORCE",
        lambda it: it.in_effect,
    ),
    Column(
        "source",
        lambda it: it.limit_override.origin.source if it.limit_override else "declared",
        "SOURCE",
        lambda it: "override" if it.limit_override else "declared",
    ),
    Column("ordered", lambda it: it.limit_override and _origin(it.limit_override.origin, it.limit_override.until_us)),
    Column("backs_off_until_us", lambda it: None if it.is_any else it.off_us or None),
    Column("paused", lambda it: it.pause and _origin(it.pause.origin, it.pause.until_us)),
    Column(
        "rate_per_s",
        lambda it: None if it.is_any else round(it.rate, 3),
        "RATE",
        lambda it: it.of_one(_per(it.rate)),
    ),
    Column(
        "held", lambda it: it.held and it.held.tasks, "HELD", lambda it: "?" if it.held is None else str(it.held.tasks)
    ),
    Column(
        "quotas",
        lambda it: None if it.is_any else [quota.facts for quota in it.quotas],
    ),
    Column("queues_aside", lambda it: it.held and dict(it.held.aside)),
    Column(
        "waiting_workers", lambda it: None if it.is_any else it.waiting, "WAITING", lambda it: it.of_one(it.waiting)
    ),
    Column(
        "next_slot_us", lambda it: None if it.is_any else it.next_us, "NEXT SLOT", lambda it: it.of_one(it.next_slot)
    ),
)
#: Those that people see.
SHOWN = [column for column in COLUMNS if column.head]


@dataclass(frozen=True)
class Row:
    """One bucket, as it is shown.

    Attributes:
        facts: all there is, for programs.
        cells: what people see of it, in the order of the columns.
        note: below them.
    """

    facts: dict[str, Any]
    cells: tuple[str, ...]
    note: str

    @classmethod
    def of(cls, look: Look) -> Row:
        """What is shown of a bucket."""
        facts = {column.key: column.fact(look) for column in COLUMNS}
        cells = (column.cell(look) if column.cell else str(facts[column.key]) for column in SHOWN)
        return cls(facts, tuple(cells), look.note)


def rows(
    context: Context, store: BlockingStore, names: Sequence[str] | None, value: str | None, timeout_s: float
) -> list[Row]:
    """Look at the buckets for a second.

    Args:
        context: the application.
        store: where the limits are kept.
        names: tasks and named buckets; None for all that have a limit or an override.
        value: of the key of the one that is named, as a part of a Redis key; or None.
        timeout_s: how long to wait for workers, in seconds; 0 does not ask them.
    """
    texts = store.overrides()
    chosen = context.limited(texts) if names is None else names
    windows = {name: context.windows(name, value) for name in chosen}
    before, begin = store.states(windows), time.monotonic()
    held = _held(context.app, timeout_s) if timeout_s else None
    time.sleep(max(0.0, SAMPLE_S - (time.monotonic() - begin)))
    after, sampled_s, now_us = store.states(windows), time.monotonic() - begin, store.now_us()
    found = []
    for name, states in after.items():
        override, problem = _read(texts.get(name))
        declared = context.declared(name)
        limit_override = override.limit_override_at(now_us) if override else None
        if limit_override and (misfit := limit_override.misfit(declared)):
            problem = f"{limit_override.rate} was set, which is {misfit}: it has no effect"
            limit_override = None
        look = Look(
            name,
            declared,
            limit_override,
            override.pause_at(now_us) if override else None,
            None if held is None else held[name],
            before[name],
            states,
            sampled_s,
            now_us,
            context.is_unlimited(name),
            problem,
            is_any=value is None and name in context.keyed,
            cost=context.named[name].cost if name in context.named else None,
        )
        found.append(Row.of(look))
    return found


def _read(text: bytes | None) -> tuple[Override | None, str]:
    try:
        return (Override.parse(text) if text else None), ""
    except ValueError as exc:
        return None, f"its override cannot be read ({exc}): nothing starts until `set` or `reset` writes another one"


def _held(app: Any, timeout_s: float) -> defaultdict[str, Holding] | None:
    """What workers hold, by bucket; None if the broker cannot be reached."""
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


def _per(rate: float) -> str:
    """A rate as one writes it: per second, or per minute or hour if that is less than one."""
    for period in "smh":
        count = rate * PERIODS_S[period]
        if count >= 1 or not rate:
            return f"{count:.1f}/{period}"
    return f"{rate * PERIODS_S['h']:.2f}/h"


def effective_rate(limit: Limit | None, before: State, after: State, sampled_s: float) -> float:
    """Slots per second between two looks at a bucket.

    Counted from slot to slot if they follow each other as the limit lets them: a second has one or two slots of
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


def _note(what: str, change: LimitOverride | Pause, now_us: int) -> str:
    origin, until_us = change.origin, change.until_us
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


def change(override: Override, now_us: int) -> dict[str, Any]:
    """The change that made an override, for programs: an entry of its history."""
    limit_override = override.limit_override if override.what in ("set", "reset") else None
    ends = limit_override or override.pause
    return {
        "what": override.what,
        "rate": limit_override.rate if limit_override else None,
        "replaced": limit_override.replaced if limit_override else None,
        "version": override.version,
        "age_s": round((now_us - override.origin.when_us) / 1e6),
        **_origin(override.origin, ends.until_us if ends else None),
    }


def table(found: Sequence[Row]) -> list[str]:
    """Lines of at most 100 columns. Long names lose their middle, long notes their end."""
    if not found:
        return ["no task has a limit or an override"]
    heads = tuple(column.head for column in SHOWN)
    widths = [max(map(len, cells)) for cells in zip(heads, *(row.cells for row in found))]
    widths[0] = max(10, min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    lines = [_line(heads, widths)]
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
