"""What a task declares, as the numbers that the scripts compute with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from numbers import Real
from typing import Any

from .costs import LARGEST_COST
from .duration import US_PER_S
from .refills import MOST_REFILLS, Refills
from .windows import Calendar, Sliding, Window, read_timezone

PS_PER_US = 1_000_000

PERIODS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: The most starts in a period of several seconds or hours, where a limit is spelled that way.
LARGEST_COUNT = 10_000
_PERIOD = re.compile(r"([1-9]\d{0,8})?([smhd])")

SHORTEST_GRACE_S = 0.025
LONGEST_GRACE_S = 1.0
#: The end of the grace, left to the hand-over: a busy machine may stop a worker after its last look at the clock.
HAND_OVER_S = 0.005

LARGEST_BURST = 1_000_000
#: What operators write behind the slash, of a bucket that a crontab refills.
REFILL = "refill"
#: The most starts in a window of a quota.
LARGEST_QUOTA = 1_000_000_000
#: Of sliding windows: those that are so many times D keep each slot by D longer, and the most entries of a log.
WORTH_A_GRACE = 200
MOST_ENTRIES = 1000

#: A bucket that takes longer to fill is a mistake, and its instants would leave the range of exact integers.
LONGEST_FILL_US = 10 * 365 * 86400 * US_PER_S


@dataclass(frozen=True)
class Spelling:
    """How a rate may be written.

    Attributes:
        periods: the letters of `PERIODS_S` that may follow the slash.
        has_counts: whether a number may stand before such a letter.
        remedy: what to write instead, for an error.
    """

    periods: str
    has_counts: bool
    remedy: str


#: Celery's own periods. No others: a stock worker must understand every rate that a task declares.
AS_DECLARED = Spelling(
    "smh", False, "use N/s, N/m or N/h with a positive number N, a number of starts per second, or None for no limit"
)
#: What a named bucket may have: no stock worker reads it, and without a limit it would have no effect.
AS_BUCKET = Spelling("smhd", True, "use N/s, N/m, N/h, N/d or N/30s with a positive number N")
#: What an operator may write, for a task or a named bucket.
AS_OVERRIDE = Spelling("smhd", True, "use N/s, N/m, N/h, N/d or N/30s with a positive number N, or none for no limit")


@dataclass(frozen=True)
class Limit:
    """A rate and its burst: the emission interval T and the slots in a full bucket. Or a quota: so many in each window.

    The interval is exact to a picosecond and rounded up, so a limit is never faster than declared and at 100,000
    starts a second slower by less than one part in a million.

    Attributes:
        interval_us: whole microseconds of the emission interval. Of a quota, that at which its longest window is just
            used up: who goes by it alone stays within the quota.
        interval_ps: its remainder in picoseconds, 0 to 999,999.
        burst: slots in a full bucket, 1 to a million; 1 is even spacing, as Celery means a rate. Of a quota, how many
            each window has, 1 to a thousand million.
        window: the windows of a quota; None if the limit is smooth.
    """

    interval_us: int
    interval_ps: int = 0
    burst: int = 1
    window: Window | None = None

    @property
    def exact_ps(self) -> int:
        """The emission interval in picoseconds."""
        return self.interval_us * PS_PER_US + self.interval_ps

    @property
    def whole_us(self) -> int:
        """The emission interval in whole microseconds, rounded up: where lanes cross, slots are counted so."""
        return self.interval_us + bool(self.interval_ps)

    @cached_property
    def interval_s(self) -> float:
        """The emission interval in seconds."""
        return (self.interval_us + self.interval_ps / PS_PER_US) / US_PER_S

    @property
    def per_second(self) -> float:
        """The rate: starts per second."""
        return 1 / self.interval_s

    @cached_property
    def grace_s(self) -> float:
        """D: how long after its slot a task may still be released, in seconds; later, the slot is missed."""
        return max(SHORTEST_GRACE_S, min(self.interval_s / 10, LONGEST_GRACE_S))

    @cached_property
    def usable_s(self) -> float:
        """How long after its slot a release may still begin, in seconds: it must be over within the grace."""
        return self.grace_s - HAND_OVER_S

    @classmethod
    def parse(cls, rate: object, burst: object = None, spelling: Spelling = AS_DECLARED) -> Limit | None:
        """Read a rate as a task, an annotation or a setting spells it, or an operator.

        Args:
            rate: ``"100/m"``, ``"5/30s"`` if the spelling has counts, a number of starts per second, or None, 0, or an
                empty string for no limit.
            burst: slots in a full bucket, a whole number from 1 to a million, or None for 1.
            spelling: how it may be written.

        Returns:
            The limit, or None for no limit.

        Raises:
            ValueError: the rate or burst is invalid; the text names it and what to write instead.
        """
        per_s = _per_second(rate, spelling)
        slots = _burst(burst)
        if not per_s:
            return None
        interval_ps = math.ceil(Fraction(US_PER_S * PS_PER_US) / per_s)
        if interval_ps * slots > LONGEST_FILL_US * PS_PER_US:
            raise ValueError(f"rate {rate!r:.80} takes over ten years to refill a bucket of {slots}: {spelling.remedy}")
        return cls(*divmod(interval_ps, PS_PER_US), slots)

    @property
    def largest_cost(self) -> int:
        """The most units that one start can take: those of ten years.

        Of a sliding window, those of a thousand periods; of a bucket that a crontab refills, a hundred refills beyond
        its maximum.
        """
        units = LONGEST_FILL_US * PS_PER_US // self.exact_ps
        if isinstance(self.window, Sliding):
            units = min(units, MOST_ENTRIES * self.burst)
        if isinstance(self.window, Refills):
            units = min(max(units, self.burst), self.burst + MOST_REFILLS * self.window.amount)
        return min(units, LARGEST_COST)

    @property
    def most_owed(self) -> int:
        """The most units beyond its maximum that one start can take from a bucket that a crontab refills."""
        return max(0, self.largest_cost - self.burst)

    def has_no_effect_beside(self, other: Limit) -> bool:
        """Whether it allows all that the other one does, counted in the same way: nothing ever waits for it."""
        return self.window == other.window and self.exact_ps <= other.exact_ps and self.burst >= other.burst

    @property
    def span_us(self) -> int:
        """How long a slot counts, of a quota of sliding windows, in microseconds.

        By D longer than the period, so that the promise holds for the starts, however late in D each of them is; where
        that would cost more than a two-hundredth of the rate, the promise has D in it instead.
        """
        assert isinstance(self.window, Sliding)
        grace_s = self.grace_s if self.window.seconds >= WORTH_A_GRACE * self.grace_s else 0
        return round((self.window.seconds + grace_s) * US_PER_S)

    @property
    def cell_us(self) -> int:
        """Slots that lie as close as this are one entry of the log of sliding windows, in microseconds."""
        assert isinstance(self.window, Sliding)
        return 1 if self.burst <= MOST_ENTRIES else self.window.seconds * US_PER_S // MOST_ENTRIES

    @classmethod
    def in_windows(cls, rate: object, offset: object = None, timezone: object = None) -> Limit:
        """Read a quota: so many starts in each window of a calendar.

        Args:
            rate: ``"10000/d"``, ``"100/10s"`` or ``"100000/month"``.
            offset: as `Calendar.parse` takes it.
            timezone: likewise.

        Raises:
            ValueError: it is invalid; the text names what, and what to write instead.
        """
        return cls._quota(rate, lambda period: Calendar.parse(period, offset, timezone))

    @classmethod
    def in_any(cls, rate: object) -> Limit:
        """Read a quota: so many starts in any period of a length, whenever it begins.

        Args:
            rate: ``"100/10s"``, ``"10000/d"``.

        Raises:
            ValueError: it is invalid; the text names what, and what to write instead.
        """
        return cls._quota(rate, Sliding.parse)

    @classmethod
    def refilled(cls, crontab: Any, amount: object, maximum: object, timezone: object = None) -> Limit:
        """So many tokens at each instant of a crontab, up to a maximum.

        Args:
            crontab: Celery's.
            amount: tokens that come each time.
            maximum: tokens of a full bucket, no less than come at once, and no more than 100 times as many.
            timezone: an IANA name, or None for UTC.

        Raises:
            ValueError: it is invalid; the text names what, and what to write instead.
        """
        for name, number in (("amount", amount), ("maximum", maximum)):
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= LARGEST_QUOTA:
                raise ValueError(f"{name} {number!r:.80} is invalid: use a whole number of tokens from 1 on")
        assert isinstance(amount, int)
        assert isinstance(maximum, int)
        return cls._refilled(Refills.of(crontab, amount, read_timezone(timezone)), maximum)

    @classmethod
    def _refilled(cls, window: Refills, maximum: int) -> Limit:
        if not window.amount <= maximum <= MOST_REFILLS * window.amount:
            raise ValueError(
                f"amount {window.amount} does not go with maximum {maximum}: use a maximum from 1 to {MOST_REFILLS} "
                f"times the amount"
            )
        interval_ps = math.ceil(Fraction(window.longest_s * US_PER_S * PS_PER_US, window.amount))
        return cls(*divmod(interval_ps, PS_PER_US), maximum, window)

    @classmethod
    def of_amount(cls, rate: object, window: Refills, maximum: int) -> Limit:
        """Refills at the same instants, with another amount.

        Args:
            rate: ``"30/refill"``.
            window: when tokens come.
            maximum: tokens of a full bucket.

        Raises:
            ValueError: it is invalid; the text names what, and what to write instead.
        """
        amount, _, unit = rate.partition("/") if isinstance(rate, str) else ("", "", "")
        if unit != REFILL or not amount.isdecimal() or int(amount) < 1:
            raise ValueError(f"rate {rate!r:.80} is not a number of tokens that come each time: use N/{REFILL}")
        return cls._refilled(replace(window, amount=int(amount)), maximum)

    @classmethod
    def _quota(cls, rate: object, window_of: Callable[[str], Window]) -> Limit:
        count, _, period = rate.partition("/") if isinstance(rate, str) else ("", "", "")
        if not count.isdecimal() or not 1 <= int(count) <= LARGEST_QUOTA or not period:
            raise ValueError(
                f"rate {rate!r:.80} is not a number of starts in a window: use N/d, N/10s or N/month with a whole N"
            )
        window = window_of(period)
        interval_ps = math.ceil(Fraction(window.longest_s * US_PER_S * PS_PER_US, int(count)))
        return cls(*divmod(interval_ps, PS_PER_US), int(count), window)

    def __str__(self) -> str:
        if isinstance(self.window, Refills):
            zone = f" {self.window.timezone}" if self.window.timezone else ""
            return f"{self.window.amount}/{REFILL} at {self.window.period}{zone}, at most {self.burst}"
        if self.window:
            return f"{self.burst}/{self.window.period} {self.window}"
        return self._rate() + (f", burst {self.burst}" if self.burst > 1 else "")

    def _rate(self) -> str:
        """The rate in whole numbers, or in digits; rounded if no such text reads back as this limit."""
        counts = {period: self.per_second * seconds for period, seconds in PERIODS_S.items()}
        period = next((period for period in "sh" if counts[period] >= 1), "d")
        seconds = Fraction(self.exact_ps, US_PER_S * PS_PER_US).limit_denominator(LARGEST_COUNT)
        unit = next(unit for unit in "dhms" if seconds.numerator % PERIODS_S[unit] == 0)
        texts = [
            *(
                f"{round(count)}/{period}"
                for period, count in counts.items()
                if abs(count - round(count)) < 1e-6 * count
            ),
            f"{counts[period]:.6g}/{period}",
            f"{seconds.denominator}/{seconds.numerator // PERIODS_S[unit]}{unit}",
        ]
        return next(filter(self._has_rate, texts), texts[0])

    def _has_rate(self, text: str) -> bool:
        try:
            limit = Limit.parse(text, spelling=AS_BUCKET)
        except ValueError:
            return False
        return limit is not None and limit.exact_ps == self.exact_ps


#: What a task or a named bucket declares, and what is in force for it; empty for no limit.
Limits = tuple[Limit, ...]


def spelled(limits: Limits, nothing: str = "none") -> str:
    """Limits as people read them; `nothing` if there are none."""
    return " and ".join(map(str, limits)) or nothing


def _per_second(rate: object, spelling: Spelling) -> Fraction:
    if rate is None or rate is False or rate == "":
        return Fraction(0)
    count, period = rate, "s"
    if isinstance(rate, str):
        count, _, period = rate.partition("/")
        period = period or "s"
    try:
        if isinstance(count, bool) or not isinstance(count, (str, Real)):
            raise TypeError
        parts = _PERIOD.fullmatch(period)
        if parts is None or parts[2] not in spelling.periods or (parts[1] and not spelling.has_counts):
            raise ValueError
        # By way of float, as Celery reads it; str() brings back the digits that were written: 0.1 is a tenth.
        per_period = Fraction(str(float(count)))
        per_s = per_period / (int(parts[1] or 1) * PERIODS_S[parts[2]])
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"rate {rate!r:.80} cannot be read: {spelling.remedy}") from None
    if per_s < 0:
        raise ValueError(f"rate {rate!r:.80} is negative: {spelling.remedy}")
    return per_s


def _burst(burst: object) -> int:
    if burst is None:
        return 1
    if isinstance(burst, bool) or not isinstance(burst, int) or not 1 <= burst <= LARGEST_BURST:
        raise ValueError(f"burst {burst!r:.80} is invalid: use a whole number from 1 to {LARGEST_BURST}")
    return burst
