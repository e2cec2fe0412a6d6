"""The windows of a quota: those of a calendar, one after the other, or any period of a length; or refills."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timezone, tzinfo
from typing import ClassVar, Union
from zoneinfo import ZoneInfo

from . import duration
from .duration import UNITS_S, US_PER_S
from .refills import Refills

DAY_S, HOUR_S = UNITS_S["d"], UNITS_S["h"]
#: From when on windows are counted, epoch seconds: Monday, January 1st of the year 1, UTC. Weeks begin on Mondays.
ORIGIN_S = -62_135_596_800
SHORTEST_MONTH_S, LONGEST_MONTH_S = 28 * DAY_S, 31 * DAY_S
MOST_MONTHS = 12
LONGEST_S = 366 * DAY_S

_PERIOD = re.compile(r"([1-9]\d{0,8})?(s|m|h|d|month)")
_TEXT = re.compile(
    r"sliding:(?P<any>[1-9]\d{0,8})|(?P<seconds>\d{1,9}):(?P<months>\d{1,2}):(?P<offset>\d{1,9}):(?P<zone>[\w./+-]{0,64})",
    re.ASCII,
)


@dataclass(frozen=True)
class Calendar:
    """Windows of time, one after the other without a gap.

    Those of days and months begin at midnight of a time zone, so a day may have 23 or 25 hours.

    Attributes:
        kind: of windows.
        has_edges: whether all slots come at once where one begins, and no start may leave it.
        seconds: the length of a window; 0 if it is months. In a time zone it is whole days.
        months: its length in months; 0 if it is seconds.
        offset_s: how much later each window begins.
        timezone: an IANA name, such as `Europe/Berlin`; empty for UTC.
    """

    kind: ClassVar[str] = "fixed"
    has_edges: ClassVar[bool] = True

    seconds: int
    months: int = 0
    offset_s: int = 0
    timezone: str = ""

    @classmethod
    def parse(cls, period: str, offset: object = None, timezone: object = None) -> Calendar:
        """Read one.

        Args:
            period: the length of a window, as in a rate: `10s`, `m`, `2h`, `d`, `7d`, `month`, `3month`.
            offset: how much later than usual windows begin: `9h`, `4d`, or a number of seconds.
            timezone: an IANA name; days and months begin at midnight there.

        Raises:
            ValueError: it cannot be meant; the text names the value and what to write instead.
        """
        seconds, months = _length(period)
        found = cls(seconds, months, _offset_s(offset), read_timezone(timezone))
        if found.offset_s and found.timezone:
            raise ValueError(f"offset {offset!r:.80} and timezone {timezone!r:.80}: use one of them")
        if found.offset_s >= found.shortest_s:
            raise ValueError(f"offset {offset!r:.80} is not shorter than the period, {period}: use a shorter one")
        if found.timezone and seconds % DAY_S:
            raise ValueError(f"timezone {timezone!r:.80} has no effect on {period}: use it with days or months")
        return found

    @property
    def shortest_s(self) -> int:
        """How long a window is at the least, in seconds, but for the change of the clocks."""
        return self.seconds or self.months * SHORTEST_MONTH_S

    @property
    def longest_s(self) -> int:
        """How long a window is at the most, in seconds, with the hour that clocks are put back."""
        return (self.seconds or self.months * LONGEST_MONTH_S) + HOUR_S * bool(self.timezone)

    @property
    def period(self) -> str:
        """The length of a window as in a rate, by the largest unit."""
        if self.months:
            return f"{self.months if self.months > 1 else ''}month"
        return _spelled_s(self.seconds, "")

    @property
    def offset(self) -> str:
        """The offset by the largest unit, empty if there is none."""
        return _spelled_s(self.offset_s) if self.offset_s else ""

    @property
    def key(self) -> str:
        """What tells it from other windows, as a part of a Redis key."""
        offset = f"+{self.offset}" if self.offset_s else ""
        return f"{self.kind}-{self.period}" + offset + (f"-{self.timezone}" if self.timezone else "")

    @property
    def text(self) -> str:
        """All of it, as `read` reads it."""
        return f"{self.seconds}:{self.months}:{self.offset_s}:{self.timezone}"

    def __str__(self) -> str:
        offset = f", offset {self.offset}" if self.offset_s else ""
        return self.kind + offset + (f", {self.timezone}" if self.timezone else "")

    def edges(self, now_us: float) -> tuple[int, int, int]:
        """The window of an instant.

        Args:
            now_us: epoch us.

        Returns:
            When it begins, when it ends, and when the next one does; epoch us.
        """
        index = self._index(int(now_us // US_PER_S) - self.offset_s)
        edges_us = [(self._begin_s(index + later) + self.offset_s) * US_PER_S for later in range(4)]
        if edges_us[1] <= now_us:  # clocks were put back just after midnight: the new day has begun all the same
            del edges_us[0]
        elif edges_us[1] == edges_us[2]:  # a day that the zone has left out, to change sides of the date line
            del edges_us[1]
        begin_us, end_us, next_end_us = edges_us[:3]
        return begin_us, end_us, next_end_us

    def _index(self, epoch_s: int) -> int:
        """The number of the window of an instant."""
        if not self._is_by_date:
            return (epoch_s - ORIGIN_S) // self.seconds
        day = datetime.fromtimestamp(epoch_s, self._zone).date()
        return (day.year * 12 + day.month - 1) // self.months if self.months else (day.toordinal() - 1) // self._days

    def _begin_s(self, index: int) -> int:
        """When a window begins, epoch seconds. Where clocks skip midnight, it is when they do."""
        if not self._is_by_date:
            return ORIGIN_S + index * self.seconds
        year, month = divmod(index * self.months, 12)
        day = date(year, month + 1, 1) if self.months else date.fromordinal(1 + index * self._days)
        return int(datetime(day.year, day.month, day.day, tzinfo=self._zone).timestamp())

    @property
    def _is_by_date(self) -> bool:
        return bool(self.months or self.timezone)

    @property
    def _days(self) -> int:
        return self.seconds // DAY_S

    @property
    def _zone(self) -> tzinfo:
        return ZoneInfo(self.timezone) if self.timezone else timezone.utc


@dataclass(frozen=True)
class Sliding:
    """Every period of a length, whenever it begins.

    Attributes:
        kind, has_edges: as above.
        seconds: the length.
    """

    kind: ClassVar[str] = "sliding"
    has_edges: ClassVar[bool] = False

    seconds: int

    @classmethod
    def parse(cls, period: str) -> Sliding:
        """Read one.

        Args:
            period: the length, as in a rate: `10s`, `m`, `2h`, `d`.

        Raises:
            ValueError: it cannot be meant; the text names the value and what to write instead.
        """
        seconds, months = _length(period)
        if months:
            raise ValueError(f"period {period!r:.80}: months differ in length: use 30d, or a fixed window")
        return cls(seconds)

    @property
    def longest_s(self) -> int:
        """How long it is, in seconds."""
        return self.seconds

    @property
    def period(self) -> str:
        """The length as in a rate, by the largest unit."""
        return _spelled_s(self.seconds, "")

    @property
    def key(self) -> str:
        """What tells it from other windows, as a part of a Redis key."""
        return f"{self.kind}-{self.period}"

    @property
    def text(self) -> str:
        """All of it, as `read` reads it."""
        return f"sliding:{self.seconds}"

    def __str__(self) -> str:
        return self.kind


Window = Union[Calendar, Sliding, Refills]


def read(text: str) -> Window | None:
    """The windows that a text means, as they write themselves; None for an empty text.

    Raises:
        ValueError: it means none.
    """
    if not text:
        return None
    if text.startswith(Refills.kind):
        return Refills.read(text)
    parts = _TEXT.fullmatch(text)
    if parts is None:
        raise ValueError("a window cannot be read")
    if parts["any"]:
        return Sliding(int(parts["any"]))
    seconds, months, offset_s = (int(parts[name]) for name in ("seconds", "months", "offset"))
    if bool(seconds) == bool(months):
        raise ValueError("a window is of seconds or of months")
    return Calendar(seconds, months, offset_s, read_timezone(parts["zone"] or None))


def _length(period: str) -> tuple[int, int]:
    """The length of a window in seconds, or in months."""
    parts = _PERIOD.fullmatch(period)
    if parts is None:
        raise ValueError(f"period {period!r:.80} cannot be read: use for example 10s, 2h, d, 7d or month")
    count, unit = int(parts[1] or 1), parts[2]
    seconds, months = (0, count) if unit == "month" else (count * UNITS_S[unit], 0)
    if months > MOST_MONTHS or seconds > LONGEST_S:
        raise ValueError(f"period {period!r:.80} is too long for a window: use a year at the most")
    return seconds, months


def _spelled_s(seconds: int, one: str = "1") -> str:
    """A length of time by its largest unit; `one` stands before the unit itself."""
    unit = next(unit for unit, unit_s in UNITS_S.items() if seconds % unit_s == 0)
    count = seconds // UNITS_S[unit]
    return f"{count if count != 1 else one}{unit}"


def _offset_s(offset: object) -> int:
    if offset is None:
        return 0
    try:
        seconds = duration.parse(offset) if isinstance(offset, str) else offset
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= LONGEST_S:
            raise ValueError
        if seconds != int(seconds):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"offset {offset!r:.80} cannot be read: use for example 9h, 90m, 4d or whole seconds"
        ) from None
    return int(seconds)


def read_timezone(name: object) -> str:
    """The name of a time zone, empty for UTC.

    Raises:
        ValueError: it is not known.
    """
    if name is None or name == "UTC":
        return ""
    try:
        if isinstance(name, str) and name:
            return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):  # of a name that is a directory, or leads out of it
        pass
    raise ValueError(f"timezone {name!r:.80} is not known: use a name such as 'America/Los_Angeles'")
