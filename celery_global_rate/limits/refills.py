"""Refills of a bucket by a crontab: so many tokens at each of its instants, up to a maximum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from itertools import count, islice
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from .duration import UNITS_S, US_PER_S

MINUTE_US = UNITS_S["m"] * US_PER_S
DAY_MINUTES = 24 * 60
#: The values of each field where it says nothing, and what Celery calls them.
WHOLE = {
    "minute": frozenset(range(60)),
    "hour": frozenset(range(24)),
    "day_of_month": frozenset(range(1, 32)),
    "month_of_year": frozenset(range(1, 13)),
    "day_of_week": frozenset(range(7)),
}
#: How far apart refills may be, in days: two February 29ths are eight years apart at the most.
FARTHEST_DAYS = 8 * 366
#: The most refills that fill an empty bucket: a caller sends that many instants.
MOST_REFILLS = 100


@dataclass(frozen=True)
class Edges:
    """The refills around an instant, epoch us.

    Attributes:
        past: the last ones up to it, as many as fill an empty bucket and one more, in order.
        next_us: the next one, and the one after it.
        full_us: when a bucket is full for certain that owes as much as it holds.
    """

    past: tuple[int, ...]
    next_us: tuple[int, int]
    full_us: int


@dataclass(frozen=True)
class Refills:
    """When tokens come, and how many: a crontab as Celery has it, in a time zone.

    A refill is at each minute of which all five fields hold on the wall clock. Where clocks are put back, the hour that
    comes twice has its refills twice if each hour has them, and else the first time only. Where clocks skip an hour,
    what would be in it comes as much later.

    Attributes:
        kind, has_edges: as those of fixed windows.
        crontab: minutes, hours, days of the month, months and days of the week (0 for Sunday), with a space between
            them: each is `*`, or numbers with commas between them.
        timezone: an IANA name; empty for UTC.
        amount: tokens that come each time.
    """

    kind: ClassVar[str] = "crontab"
    has_edges: ClassVar[bool] = True

    crontab: str
    timezone: str = ""
    amount: int = 1

    @staticmethod
    def is_crontab(found: object) -> bool:
        """Whether it is a crontab as Celery has it. That is not imported here: what has all its fields is one."""
        return all(isinstance(getattr(found, name, None), (set, frozenset)) for name in WHOLE)

    @classmethod
    def of(cls, crontab: Any, amount: int, timezone: str = "") -> Refills:
        """Those of Celery's crontab.

        Raises:
            ValueError: it comes less often than a February 29th.
        """
        texts = (_spelled(getattr(crontab, name), whole) for name, whole in WHOLE.items())
        found = cls(" ".join(texts), timezone, amount)
        if len(found._dates) < 2:
            raise ValueError(f"crontab {found.crontab!r:.80} comes less often than every eight years")
        return found

    @classmethod
    def read(cls, text: str) -> Refills:
        """What `text` has written.

        Raises:
            ValueError: it means none.
        """
        try:
            kind, crontab, zone, amount = text.split(":")
            found = cls(crontab.replace(";", ","), zone, int(amount))
            if kind != cls.kind or not all(map(found._values, WHOLE)) or found.amount < 1:
                raise ValueError
            ZoneInfo(zone or "UTC")
        except (ValueError, KeyError, OSError):
            raise ValueError("the refills of a bucket cannot be read") from None
        return found

    @property
    def period(self) -> str:
        """When they come."""
        return self.crontab

    @property
    def key(self) -> str:
        """What tells it from other windows, as a part of a Redis key."""
        return f"{self.kind}-{self.crontab.replace(' ', '_')}" + (f"-{self.timezone}" if self.timezone else "")

    @property
    def text(self) -> str:
        """All of it, as `read` reads it; without a comma."""
        return f"{self.kind}:{self.crontab.replace(',', ';')}:{self.timezone}:{self.amount}"

    @property
    def longest_s(self) -> int:
        """How long it is between two refills at the most, in seconds, with the hour that clocks are put back."""
        minutes, dates = self._minutes, self._dates
        days = max((later - earlier).days for earlier, later in zip(dates, dates[1:]))
        between = days * DAY_MINUTES + minutes[0] - minutes[-1]
        within = max((later - earlier for earlier, later in zip(minutes, minutes[1:])), default=0)
        return max(between, within) * UNITS_S["m"] + UNITS_S["h"] * self._stretches

    @property
    def _stretches(self) -> bool:
        """Whether clocks that are put back make it longer: not if every hour has the same, and they change by hours."""
        if not self.timezone:
            return False
        is_hourly = all(self._values(field) == WHOLE[field] for field in WHOLE if field != "minute")
        months = (datetime(day.year, day.month, 1, tzinfo=self._zone) for day in self._dates[::28])
        return not is_hourly or len({int(month.timestamp()) % UNITS_S["h"] for month in months}) > 1

    def __str__(self) -> str:
        return self.kind + (f", {self.timezone}" if self.timezone else "")

    def edges(self, now_us: float, maximum: int) -> Edges:
        """The refills around an instant.

        Args:
            now_us: epoch us.
            maximum: tokens of a full bucket.
        """
        return _edges(self, int(now_us // MINUTE_US), -(-maximum // self.amount))

    def _values(self, field: str) -> frozenset[int]:
        """The numbers of a field; none if one of them cannot be meant."""
        return _values(self.crontab, field)

    @property
    def _minutes(self) -> list[int]:
        """The minutes of a day, in order."""
        return sorted(hour * 60 + minute for hour in self._values("hour") for minute in self._values("minute"))

    @property
    def _dates(self) -> list[date]:
        """The days that have refills, for somewhat over eight years."""
        return [day for day in islice(_days(date(2024, 1, 1), 1), FARTHEST_DAYS + 1) if self._has(day)]

    def _has(self, day: date) -> bool:
        return (
            day.month in self._values("month_of_year")
            and day.day in self._values("day_of_month")
            and day.isoweekday() % 7 in self._values("day_of_week")
        )

    @property
    def _zone(self) -> tzinfo:
        return ZoneInfo(self.timezone) if self.timezone else timezone.utc


def _spelled(numbers: Iterable[int], whole: frozenset[int]) -> str:
    return "*" if whole <= set(numbers) else ",".join(map(str, sorted(numbers)))


@lru_cache(maxsize=1024)
def _values(crontab: str, field: str) -> frozenset[int]:
    """The numbers of a field of a crontab; none if one of them cannot be meant."""
    texts = dict(zip(WHOLE, crontab.split(" ")))
    if texts.get(field) == "*":
        return WHOLE[field]
    numbers = frozenset(map(int, texts.get(field, "-1").split(",")))
    return numbers if numbers <= WHOLE[field] else frozenset()


def _epoch_us(wall: datetime) -> int:
    return int(wall.timestamp()) * US_PER_S


def _days(first: date, step: int) -> Iterator[date]:
    return (first + timedelta(step * number) for number in count())


@lru_cache(maxsize=4096)
def _edges_of(refills: Refills, day: date) -> tuple[int, ...]:
    """The refills of a day of the wall clock, epoch us, in order."""
    if not refills._has(day):
        return ()
    zone, is_hourly = refills._zone, refills._values("hour") == WHOLE["hour"]
    found = set()
    for minutes in refills._minutes:
        wall = datetime(day.year, day.month, day.day, minutes // 60, minutes % 60, tzinfo=zone)
        found.add(_epoch_us(wall))
        if is_hourly:
            found.add(max(_epoch_us(wall), _epoch_us(wall.replace(fold=1))))
    return tuple(sorted(found))


@lru_cache(maxsize=1024)
def _edges(refills: Refills, minute: int, filling: int) -> Edges:
    """The refills around a minute of the epoch, as of any instant in it; `filling` of them fill a bucket."""
    now_us = minute * MINUTE_US
    today = datetime.fromtimestamp(now_us // US_PER_S, refills._zone).date()
    # A wall clock's next day may have begun, of an hour that comes twice around midnight.
    before = (us for day in _days(today + timedelta(1), -1) for us in reversed(_edges_of(refills, day)))
    return _edges_since(refills, next(us for us in before if us <= now_us), filling)


@lru_cache(maxsize=1024)
def _edges_since(refills: Refills, last_us: int, filling: int) -> Edges:
    """The refills around one of them. They may be years apart, so this takes long, and is done once for each."""
    today = datetime.fromtimestamp(last_us // US_PER_S, refills._zone).date()
    past: list[int] = []
    for day in _days(today + timedelta(1), -1):
        past[:0] = [us for us in _edges_of(refills, day) if us <= last_us]
        if len(past) > filling:
            break
    ahead: list[int] = []
    for day in _days(today - timedelta(1), 1):
        ahead += [us for us in _edges_of(refills, day) if us > last_us]
        if len(ahead) > 2 * filling + 1:
            break
    return Edges(tuple(past[-filling - 1 :]), (ahead[0], ahead[1]), ahead[2 * filling])
