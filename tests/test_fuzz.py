"""A hundred thousand random inputs, most of them invalid: rates, quotas, settings, overrides, replies."""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from celery.utils.time import rate as celery_rate

from celery_global_rate.limits.limit import LARGEST_BURST, LONGEST_FILL_US, Limit
from celery_global_rate.limits.override import Override, parse_rate, set_limits
from celery_global_rate.limits.redis_clock import LAST_US, RedisClock
from celery_global_rate.limits.reservation import Reservation
from celery_global_rate.limits.windows import Calendar
from celery_global_rate.settings import Settings

from .conftest import Figures

SEED = 2255
#: Faster limits, in starts per second, are what they are to a picosecond.
FASTEST = 1e6
#: What inputs are made of.
SCRAPS: list[Any] = [
    *(
        "",
        "0",
        "1",
        "10",
        "-5",
        "1e3",
        "1e400",
        "1e-400",
        "nan",
        "inf",
        "0x10",
        "1_000",
        "\u0661\u0660",
        ".5",
        "5.",
        "+7",
        " 3 ",
    ),
    *("/", "/s", "/m", "/h", "/d", "/x", "/s/s", "s", "per", "\n", "\0", "{", "}", "{}", "é", "\ud800", "a" * 5000),
    *("redis://", "rediss://", "sentinel://", "redis+cluster://", "unix://", "amqp://", "h", ":1", ":99999", "@", "?"),
    *("service_name=m", "#", "[::1", "%", "%zz", ";", "//", "/0", "/x", "none", "declared", "true"),
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 10**6, 10**30, -(10**30), 0.5, -0.5, math.nan, math.inf, -math.inf, 1e-320),
    *([], {}, (), b"", b"10/s", object(), 1j, {"a": 1}, ["10/s"], ("10", "s"), lambda: 1),
]


def text(chance: random.Random) -> str:
    return "".join(str(chance.choice(SCRAPS)) for _ in range(chance.randrange(5)))


def anything(chance: random.Random) -> Any:
    return text(chance) if chance.random() < 0.8 else chance.choice(VALUES)


def a_rate(chance: random.Random) -> str:
    """What is accepted is what Celery reads, too, and a limit that the scripts can compute with."""
    rate, burst = anything(chance), chance.choice([None, 1, anything(chance)])
    try:
        limit = Limit.parse(rate, burst)
    except ValueError:
        return "refused"
    if limit is None:
        assert not celery_rate(rate)
        return "no limit"
    assert limit.per_second == pytest.approx(min(celery_rate(rate), FASTEST), rel=1e-5) or limit.per_second > FASTEST
    assert 1 <= limit.burst <= LARGEST_BURST
    assert limit.interval_us * 10**6 + limit.interval_ps > 0
    assert limit.interval_us * limit.burst <= LONGEST_FILL_US
    return "accepted"


def a_rate_that_is_set(chance: random.Random) -> str:
    """What an operator sets is read back as it was written."""
    rate = text(chance)
    try:
        limit, spelled = parse_rate(rate, None)
    except ValueError:
        return "refused"
    again, _ = parse_rate(spelled, None)
    assert (limit is None) == (again is None)
    if limit and again and limit.per_second < FASTEST:
        assert again.per_second == pytest.approx(limit.per_second, rel=1e-5)
    return "accepted"


def a_quota(chance: random.Random) -> str:
    """A quota has windows that begin one after the other, and an order for it is read as it was written."""

    def maybe(value: Any) -> Any:
        return value if chance.random() < 0.9 else anything(chance)

    period = maybe(f"{chance.choice(['', 1, 7, 12, 30, 400])}{chance.choice(['s', 'm', 'h', 'd', 'month'])}")
    rate = maybe(f"{maybe(chance.choice([1, 100, 10**9]))}/{period}")
    offset = maybe(chance.choice([None, None, "9h", "4d", 1800, 59.0, 10**9]))
    zone = maybe(
        chance.choice([None, None, "UTC", "Europe/Berlin", "America", "Etc/GMT+5", "leapseconds", "é", "a" * 999])
    )
    try:
        limit = Limit.in_windows(rate, offset, zone)
    except ValueError:
        return "refused"
    assert isinstance(limit.window, Calendar)
    now_us = chance.randrange(946684800, 4102444800) * 10**6 + chance.randrange(10**6)
    begin_us, end_us, next_end_us = limit.window.edges(now_us)
    assert begin_us <= now_us < end_us < next_end_us < LAST_US
    assert not set(limit.window.key) & set(":, {}")
    written = set_limits((limit,), str(limit), (limit,))["limit"] | {"when": "1"}
    override = Override.parse(f"1:a:0:{json.dumps({'what': 'set', 'when': '1', 'limit': written})}")
    assert override.limit_override
    assert override.limit_override.limits == (limit,)
    return "accepted"


def a_setting(chance: random.Random) -> str:
    """Settings are taken or refused."""
    names = ["url", "redis_options", "key_prefix", "max_held", "consumer_timeout", "on_outage"]
    conf = {f"global_rate_{name}": anything(chance) for name in chance.sample(names, 2)}
    app = Celery("proj", broker="redis://h:1/0", set_as_current=False)
    app.conf.update(conf)
    try:
        settings = Settings.from_app(app)
    except ImproperlyConfigured:
        return "refused"
    assert isinstance(settings.max_held, int)
    assert settings.max_held >= 0
    assert 0 <= settings.consumer_timeout_s < math.inf
    assert settings.on_outage in ("share", "hold", "open")
    assert settings.key_prefix
    settings.connection()
    return "accepted"


def an_override(chance: random.Random) -> str:
    """An override is read or not; one that is read has answers, whatever is in it."""
    keys = [
        "what",
        "limit",
        "pause",
        "when",
        "by",
        "source",
        "reason",
        "rate",
        "us",
        "ps",
        "burst",
        "window",
        "until",
        "declared",
    ]

    def entry(depth: int) -> Any:
        if depth == 0 or chance.random() < 0.6:
            values = [
                anything(chance),
                chance.choice(["10:0:0:", "0:1:5:UTC", "sliding:5", ",0:0:0:"]),
                str(chance.choice([0, 5, 10**15, 10**40, -3])),
                chance.choice([1, 0.5, 10**40]),
            ]
            value = chance.choice(values)
            return value if isinstance(value, (str, int, float, type(None))) else str(value)
        return {chance.choice(keys): entry(depth - 1) for _ in range(chance.randrange(8))}

    content: Any = {key: entry(2) for key in keys if chance.random() < 0.7} if chance.random() < 0.9 else entry(1)
    begin = chance.choice(["1:a:0:", "9:b:5:", f"{10**40}:a:0:", f"1:a:{10**40}:", text(chance)])
    try:
        override = Override.parse(begin + json.dumps(content))
    except ValueError:
        return "refused"
    now_us = time.time() * 1e6
    clock = RedisClock()
    clock.observe(int(now_us), 0.0, 0.1)
    for us in (override.floor_us, override.limit_override.until_us if override.limit_override else None):
        assert us is None or math.isfinite(clock.reached(us))
    limits = override.limits_at(now_us, ())
    assert all(limit.interval_s > 0 for limit in limits)
    override.pause_at(now_us)
    assert "\n" not in override.origin.by + override.origin.reason
    return "accepted"


def a_reply(chance: random.Random) -> str:
    """What Redis answers is a reservation or none."""
    good: list[Any] = [1_800_000_000_000_000, 1_800_000_000_010_000, 0, 10_000, 0, 5, 1_800_000_000_000_001, 1, b""]
    for _ in range(chance.randrange(4)):
        good[chance.randrange(len(good))] = chance.choice([anything(chance), chance.randrange(-5, 10**17)])
    answer = good[: chance.choice([9, 9, 9, 8, 3, 0])] + [1] * chance.choice([0, 0, 0, 1])
    try:
        reservation = Reservation.read(answer)
    except ValueError:
        return "refused"
    clock = RedisClock()
    clock.observe(reservation.now_us, 0.0, 0.1)
    assert 0 <= reservation.left <= 1000
    assert math.isfinite(reservation.late_s(clock, 0.0) if reservation.count else 0.0)
    return "accepted"


@pytest.mark.parametrize(
    ("read", "count"),
    [
        (a_rate, 50_000),
        (a_rate_that_is_set, 10_000),
        (a_quota, 5_000),
        (a_setting, 5_000),
        (an_override, 20_000),
        (a_reply, 15_000),
    ],
)
def test_invalid_input_is_refused_and_nothing_else_is_raised(
    figures: Figures, read: Callable[[random.Random], str], count: int
) -> None:
    """No other error than the one that refuses, and each within a second."""
    chance = random.Random(SEED)
    ends: Counter[str] = Counter()
    longest_s = 0.0
    for _ in range(count):
        begin = time.monotonic()
        ends[read(chance)] += 1
        longest_s = max(longest_s, time.monotonic() - begin)
    figures(f"{read.__name__}: {count} inputs, {dict(ends)}, the longest took {1000 * longest_s:.0f} ms")

    assert ends["accepted"] > 0
    assert ends["refused"] > 0
    assert longest_s < 1
