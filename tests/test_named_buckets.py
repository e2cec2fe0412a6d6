"""What `global_rate_buckets` says, and what is made of it. No server is needed."""

from __future__ import annotations

import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from itertools import permutations
from math import ceil
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from celery.schedules import crontab

from celery_global_rate.activation import check
from celery_global_rate.limits.limit import Limit, Limits
from celery_global_rate.limits.override import Kept, LimitOverride, parse_rates, set_limits
from celery_global_rate.named_buckets import NamedBucket, check_against_tasks, read_named_buckets

from .conftest import Figures

SETTING = "global_rate_buckets"
CRM = {"rate": ["10/s", {"rate": "1000/h", "burst": 100}], "tasks": ["crm.*"], "queues": ["crm"]}
HOUR_US = 3_600_000_000


def application(buckets: Any) -> Celery:
    app = Celery("proj", broker="redis://localhost:6379/0", set_as_current=False)
    app.conf.update({SETTING: buckets})
    return app


def sync() -> None:
    """A task."""


def read(buckets: Any) -> dict[str, NamedBucket]:
    return read_named_buckets(application(buckets).conf)


def read_one(**entry: Any) -> NamedBucket:
    return read({"api": entry})["api"]


def refusal(buckets: Any) -> str:
    """The one line that says why the setting was refused."""
    with pytest.raises(ImproperlyConfigured) as refused:
        read(buckets)
    text = str(refused.value)
    assert text.startswith(SETTING)
    assert "\n" not in text
    return text


def rejected(**entry: Any) -> str:
    """The same for one bucket that would be fine but for these fields."""
    text = refusal({"api": {"rate": "10/s", "tasks": ["crm.*"], **entry}})
    assert text.startswith(f"{SETTING}, api: ")
    return text.removeprefix(f"{SETTING}, api: ")


def test_an_entry_is_limits_and_what_they_are_for() -> None:
    bucket = read({"crm-api": CRM})["crm-api"]

    assert bucket == NamedBucket("crm-api", (Limit(100_000), Limit(3_600_000, 0, 100)), ("crm.*",), ("crm",))
    assert str(bucket) == "crm-api at 10/s and 1000/h, burst 100 (tasks crm.*; queues crm)"


@pytest.mark.parametrize("rate", ["10/s", 10, {"rate": "10/s"}, ["10/s"], ({"rate": 10, "burst": None},), "600/m"])
def test_one_rate_may_be_written_in_several_ways(rate: Any) -> None:
    assert read_one(rate=rate, tasks=["a"]).limits == (Limit(100_000),)


@pytest.mark.parametrize("names", [["a", "b"], ("a", "b"), {"b", "a"}, frozenset("ab")])
def test_tasks_and_queues_are_lists_tuples_or_sets(names: Any) -> None:
    bucket = read_one(rate="1/s", tasks=names, queues=names)

    assert (bucket.tasks, bucket.queues) == (("a", "b"), ("a", "b"))


@pytest.mark.parametrize("conf", [{}, {SETTING: None}, {SETTING: {}}])
def test_nobody_needs_a_named_bucket(conf: dict[str, Any]) -> None:
    app = Celery("proj", set_as_current=False)
    app.conf.update(conf)

    assert read_named_buckets(app.conf) == {}


def test_they_are_found_under_a_namespace() -> None:
    app = Celery("proj", set_as_current=False)
    app.config_from_object({"CELERY_GLOBAL_RATE_BUCKETS": {"crm-api": CRM}}, namespace="CELERY")

    assert list(read_named_buckets(app.conf)) == ["crm-api"]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("5/30s", Limit(6_000_000)),
        ("1000/2h", Limit(7_200_000)),
        ("10000/d", Limit(8_640_000)),
        ("3/7s", Limit(2_333_333, 333_334)),
        ("1/90d", Limit(90 * 24 * HOUR_US)),
        ("0.5/2m", Limit(240_000_000)),
    ],
)
def test_a_period_may_be_any_number_of_seconds_minutes_hours_and_days(rate: str, expected: Limit) -> None:
    assert read_one(rate=rate, tasks=["a"]).limits == (expected,)


@pytest.mark.parametrize(
    ("task", "queue", "is_covered"),
    [
        ("crm.sync", None, True),
        ("crm.sync", "other", True),
        ("mail.send", "crm", True),
        ("mail.send", None, False),
        ("mail.send", "CRM", False),
        ("mail.send", "crm.high", False),
        ("CRM.sync", None, False),
        ("crm", None, False),
        ("proj.crm.sync", None, False),
        ("celery.chord_unlock", "crm", True),
    ],
)
def test_the_task_or_the_queue_is_enough(task: str, queue: str | None, is_covered: bool) -> None:
    assert read({"crm-api": CRM})["crm-api"].covers(task, queue) == is_covered


@pytest.mark.parametrize(
    ("pattern", "is_covered"),
    [("*", False), ("c*", False), ("*.chord_unlock", False), ("celery.*", True), ("celery.chord_unlock", True)],
)
def test_a_pattern_for_all_tasks_is_not_for_those_of_celery(pattern: str, is_covered: bool) -> None:
    """A chord would wait for a slot of somebody's API."""
    assert read_one(rate="1/s", tasks=[pattern]).covers("celery.chord_unlock", None) == is_covered


def test_limits_keep_their_order_and_their_state_goes_by_their_interval() -> None:
    """An order names them as they are written; a rate that moves within the list keeps what Redis counts."""
    rates = [{"rate": "1000/h", "burst": 100}, {"rate": "5000/d", "burst": 4000}, "10/s"]
    bucket = read_one(rate=rates, tasks=["a"])

    assert [limit.burst for limit in bucket.limits] == [100, 4000, 1]
    assert bucket.windows == ("smooth2", "smooth3", "smooth")
    assert read_one(rate=rates[:1], tasks=["a"]).windows == ("smooth",)


LOS_ANGELES = "America/Los_Angeles"


@pytest.mark.parametrize(
    ("fields", "expected", "window", "text"),
    [
        ({"rate": "100/10s"}, Limit.in_windows("100/10s"), "fixed-10s", "100/10s fixed"),
        ({"rate": "10000/d"}, Limit.in_windows("10000/d"), "fixed-d", "10000/d fixed"),
        ({"rate": "500/7d"}, Limit.in_windows("500/7d"), "fixed-7d", "500/7d fixed"),
        ({"rate": "10000/month"}, Limit.in_windows("10000/month"), "fixed-month", "10000/month fixed"),
        (
            {"rate": "10000/d", "offset": "9h"},
            Limit.in_windows("10000/d", "9h"),
            "fixed-d+9h",
            "10000/d fixed, offset 9h",
        ),
        (
            {"rate": "10000/d", "offset": 9 * 3600, "timezone": None, "burst": None},
            Limit.in_windows("10000/d", "9h"),
            "fixed-d+9h",
            "10000/d fixed, offset 9h",
        ),
        (
            {"rate": "10000/d", "timezone": LOS_ANGELES},
            Limit.in_windows("10000/d", None, LOS_ANGELES),
            f"fixed-d-{LOS_ANGELES}",
            f"10000/d fixed, {LOS_ANGELES}",
        ),
        ({"rate": "100/10s", "window": "sliding"}, Limit.in_any("100/10s"), "sliding-10s", "100/10s sliding"),
        ({"rate": "10000/24h", "window": "sliding"}, Limit.in_any("10000/d"), "sliding-d", "10000/d sliding"),
        (
            {"rate": "10000/3month", "timezone": LOS_ANGELES},
            Limit.in_windows("10000/3month", None, LOS_ANGELES),
            f"fixed-3month-{LOS_ANGELES}",
            f"10000/3month fixed, {LOS_ANGELES}",
        ),
    ],
)
def test_a_quota_is_a_rate_with_a_fixed_or_sliding_window(
    fields: dict[str, Any], expected: Limit, window: str, text: str
) -> None:
    bucket = read_one(rate={"window": "fixed", **fields}, tasks=["a"])

    assert bucket.limits == (expected,)
    assert bucket.limits[0].window == expected.window
    assert bucket.limits[0].burst == int(fields["rate"].split("/")[0])
    assert bucket.windows == (window,)
    assert str(bucket) == f"api at {text} (tasks a)"


@pytest.mark.parametrize("window", ["smooth", None])
def test_a_rate_is_smooth_unless_it_says_otherwise(window: object) -> None:
    rate = {"rate": "10000/d", "burst": 5, "window": window}

    assert read_one(rate=rate, tasks=["a"]) == read_one(rate={"rate": "10000/d", "burst": 5}, tasks=["a"])


def test_a_smooth_and_a_fixed_limit_in_the_log_of_a_worker() -> None:
    rates = ["20/s", {"rate": "10000/d", "window": "fixed", "timezone": LOS_ANGELES}]
    bucket = read_one(rate=rates, tasks=["crm.*"], key="tenant_id")

    assert str(bucket) == f"api at 20/s and 10000/d fixed, {LOS_ANGELES} per tenant_id (tasks crm.*)"


def test_smooth_limits_are_counted_among_themselves_and_fixed_ones_have_their_calendar() -> None:
    """A quota that is added to a bucket, or moves in the list, leaves the state of the others where it is."""
    day, month = {"rate": "9000/d", "window": "fixed"}, {"rate": "90000/month", "window": "fixed"}
    slow = {"rate": "1000/h", "burst": 100}

    assert read_one(rate=[day, slow, month, "10/s"], tasks=["a"]).windows == (
        "fixed-d",
        "smooth2",
        "fixed-month",
        "smooth",
    )
    assert read_one(rate=[slow, day], tasks=["a"]).windows == ("smooth", "fixed-d")


def test_workers_with_the_same_bucket_have_the_same_digest_and_others_another() -> None:
    first = read_one(**CRM)
    same: list[dict[str, Any]] = [
        {"tasks": {"crm.*"}},
        {"queues": ("crm",)},
        {"rate": ["600/m", {"rate": "2000/2h", "burst": 100}]},
    ]
    others: list[dict[str, Any]] = [
        {"tasks": ["crm.*", "mail.*"]},
        {"tasks": ["crm"], "queues": ["crm.*"]},
        {"queues": None},
        {"rate": ["10/s", {"rate": "1000/h", "burst": 101}]},
        {"rate": ["10.1/s", {"rate": "1000/h", "burst": 100}]},
        {"rate": [{"rate": "1000/h", "burst": 100}, "10/s"]},
        {"rate": "10/s"},
    ]

    others += [
        {"rate": {"rate": "1000/d", "window": "fixed", **more}}
        for more in ({}, {"offset": "9h"}, {"offset": "8h"}, {"timezone": LOS_ANGELES}, {"timezone": "Europe/Berlin"})
    ]
    others += [{"rate": {"rate": rate, "window": "fixed"}} for rate in ("1001/d", "1000/h", "1000/month")]
    others += [{"rate": {"rate": rate, "window": "sliding"}} for rate in ("1000/d", "1001/d", "1000/h")]

    assert {read_one(**{**CRM, **it}).digest for it in same} == {first.digest}
    assert len({first.digest, *(read_one(**{**CRM, **it}).digest for it in others)}) == 1 + len(others)


@pytest.mark.parametrize("buckets", [[], "crm-api", 5, [CRM], ("crm-api", CRM)])
def test_no_dictionary(buckets: Any) -> None:
    assert f"is not a dictionary but {type(buckets).__name__}: use one, of entries such as" in refusal(buckets)


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "crm:api", "crm/api", "é", "a\n", "{a}", 5, None, ("a",)])
def test_a_name_that_operators_could_not_write(name: Any) -> None:
    text = refusal({name: CRM})

    assert text == f"{SETTING}: {name!r:.80} cannot be a name: use 1 to 64 letters, digits and any of _ . -"


@pytest.mark.parametrize("name", ["a", "a" * 64, "crm-api", "crm.api_2", "-", "7"])
def test_a_name_of_letters_digits_and_marks(name: str) -> None:
    assert read({name: CRM})[name].name == name


@pytest.mark.parametrize("entry", [None, "10/s", ["10/s"], 5])
def test_an_entry_that_is_no_dictionary(entry: Any) -> None:
    text = refusal({"api": entry})

    fields = "'rate', 'tasks', 'queues', 'key', 'cost', 'backoff'"
    assert text == f"{SETTING}, api: {entry!r} is not a dictionary: use one with {fields}"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"rates": "10/s"}, "'rates' is not a field of it: did you mean 'rate'?"),
        ({"task": ["a"]}, "'task' is not a field of it: did you mean 'tasks'?"),
        ({"queue": ["a"]}, "'queue' is not a field of it: did you mean 'queues'?"),
        ({"costs": 5}, "'costs' is not a field of it: did you mean 'cost'?"),
        (
            {"window": "fixed"},
            "'window' is not a field of it: it belongs to a rate, as in 'rate': {'rate': '10000/d', 'window': 'fixed'}",
        ),
        (
            {"timezone": "UTC"},
            "'timezone' is not a field of it: it belongs to a rate, as in 'rate': "
            "{'rate': '10000/d', 'window': 'fixed', 'timezone': 'America/Los_Angeles'}",
        ),
        ({"x" * 200: 1}, f"'{'x' * 79} is not a field of it: use 'rate', 'tasks', 'queues', 'key', 'cost', 'backoff'"),
        ({5: 1}, "5 is not a field of it: use 'rate', 'tasks', 'queues', 'key', 'cost', 'backoff'"),
        (
            {"burst": 20},
            "'burst' is not a field of it: it belongs to a rate, as in 'rate': {'rate': '10/s', 'burst': 20}",
        ),
        ({"rate": {"rate": "1/s", "brust": 5}}, "rate: 'brust' is not a field of it: did you mean 'burst'?"),
        (
            {"rate": {"rate": "1/d", "time_zone": "UTC"}},
            "rate: 'time_zone' is not a field of it: did you mean 'timezone'?",
        ),
        (
            {"rate": [{"rate": "1/s", "per": 5}]},
            "rate: 'per' is not a field of it: use 'rate', 'burst', 'window', 'offset', 'timezone', "
            "'amount', 'maximum'",
        ),
    ],
)
def test_an_unknown_field(fields: dict[Any, Any], text: str) -> None:
    assert refusal({"api": {**CRM, **fields}}) == f"{SETTING}, api: {text}"


@pytest.mark.parametrize("key", ["tenant_id", "headers.tenant"])
def test_a_key_is_an_argument_or_a_header(key: str) -> None:
    bucket = read_one(rate="5/s", tasks=["crm.*"], key=key)

    assert bucket.key == key
    assert str(bucket) == f"api at 5/s per {key} (tasks crm.*)"
    assert bucket.digest != read_one(rate="5/s", tasks=["crm.*"]).digest


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("", "use the name of an argument, or 'headers.' and the name of a header"),
        ("headers.", "use the name of an argument, or 'headers.' and the name of a header"),
        (5, "use the name of an argument, or 'headers.' and the name of a header"),
        ("headers.root_id", "that header is Celery's own: use one that the application sets"),
    ],
)
def test_a_key_that_cannot_be_meant(key: object, remedy: str) -> None:
    assert rejected(key=key) == f"key = {key!r}: {remedy}"


@pytest.mark.parametrize("cost", [1, 5, 10**9, "tokens", "headers.tokens", None])
def test_a_cost_is_a_number_an_argument_or_a_header(cost: Any) -> None:
    bucket = read_one(rate="500/s", tasks=["crm.*"], key="tenant", cost=cost)
    others = [read_one(rate="500/s", tasks=["crm.*"], key="tenant", cost=it) for it in (None, 2, "size", "headers.s")]

    assert bucket.cost == cost
    assert str(bucket) == f"api at 500/s per tenant{f', cost {cost}' if cost else ''} (tasks crm.*)"
    assert sum(other.digest == bucket.digest for other in others) == (cost is None)


A_COST = "use a whole number, the name of an argument, or 'headers.' and the name of a header"


@pytest.mark.parametrize(
    ("cost", "remedy"),
    [
        ("", A_COST),
        ("headers.", A_COST),
        (-1, A_COST),
        (1.0, A_COST),
        (True, A_COST),
        (False, A_COST),
        (["tokens"], A_COST),
        (0, "nothing would count: leave the bucket out, or use 1"),
        ("headers.id", "that header is Celery's own: use one that the application sets"),
        ("headers.global_rate_cost", "that header replaces any cost: use 'cost': 1, or another header"),
    ],
)
def test_a_cost_that_cannot_be_meant(cost: object, remedy: str) -> None:
    assert rejected(cost=cost) == f"cost = {cost!r}: {remedy}"


@pytest.mark.parametrize(
    ("rate", "most"),
    [
        ({"rate": "1/h", "burst": 9}, 87_600),
        ({"rate": "1/d", "window": "fixed"}, 3650),
        ({"rate": "7/d", "window": "sliding"}, 7000),
        ("1000000/s", 10**9),
    ],
)
def test_a_cost_that_is_never_paid(rate: Any, most: int) -> None:
    """A year has 8760 hours: at 1/h, 87,600 units are what ten years give."""
    (limit,) = read_one(rate=rate, tasks=["a"], cost=most).limits

    assert rejected(rate=rate, cost=most + 1) == (f"cost = {most + 1}: {limit} has at most {most} units for one start")


@pytest.mark.parametrize(
    ("backoff", "longest_s"),
    [(None, None), (False, 0), (True, 3600), (90, 90), (0.5, 0.5), ("1h30m", 5400), (timedelta(minutes=2), 120)],
)
def test_the_longest_pause_that_an_api_may_ask_for(backoff: Any, longest_s: float | None) -> None:
    bucket = read_one(rate="500/s", tasks=["crm.*"], backoff=backoff)
    others = [read_one(rate="500/s", tasks=["crm.*"], backoff=it, cost=cost) for it in (None, 7) for cost in (None, 1)]

    assert bucket.backoff_s == longest_s
    assert str(bucket) == "api at 500/s (tasks crm.*)"
    assert sum(other.digest == bucket.digest for other in others) == (backoff is None)


@pytest.mark.parametrize("backoff", [0, -1, "", "soon", "0", math.nan, math.inf, [60], timedelta(0), 10**10])
def test_a_longest_pause_that_cannot_be_meant(backoff: object) -> None:
    remedy = "use True, False, or the longest pause, such as 60 (seconds) or '15m'"
    assert rejected(backoff=backoff) == f"backoff = {backoff!r}: {remedy}"


@pytest.mark.parametrize("rate", [None, 0, "", "0/s", {"burst": 5}, {"rate": None}, ["10/s", None], [0]])
def test_a_bucket_without_a_limit(rate: Any) -> None:
    culprit = rate[-1] if isinstance(rate, list) else rate

    assert rejected(rate=rate) == (
        f"rate = {culprit!r}: a bucket without a limit has no effect: use N/s, N/m, N/h, N/d or N/30s"
    )


def test_an_entry_without_a_rate() -> None:
    assert f"{SETTING}, api: rate = None: a bucket without a limit" in refusal({"api": {"tasks": ["a"]}})


@pytest.mark.parametrize(
    "rate", ["none", "ten/s", "10/x", "10/0s", "10/05s", "10/1.5h", "10/-1s", "1/months", "10/ss", True, {"rate": []}]
)
def test_a_rate_that_cannot_be_read(rate: Any) -> None:
    culprit = rate["rate"] if isinstance(rate, dict) else rate

    assert rejected(rate=rate) == (
        f"rate: rate {culprit!r} cannot be read: use N/s, N/m, N/h, N/d or N/30s with a positive number N"
    )


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        ("-5/s", "rate: rate '-5/s' is negative: use N/s"),
        ("1/4000d", "rate: rate '1/4000d' takes over ten years to refill a bucket of 1: use N/s"),
        ({"rate": "1/s", "burst": 0}, "rate: burst 0 is invalid: use a whole number from 1 to 1000000"),
        ({"rate": "1/s", "burst": "5"}, "rate: burst '5' is invalid: use a whole number from 1 to 1000000"),
        ([], "rate = []: use one rate, or a list of up to 4"),
        (["10/s"] * 5, "rate = ['10/s', '10/s', '10/s', '10/s', '10/s']: use one rate, or a list of up to 4"),
        (["1/s"] * 5000, f"rate = {['1/s'] * 5000!r:.80}: use one rate, or a list of up to 4"),
    ],
)
def test_a_rate_that_cannot_be_meant(rate: Any, text: str) -> None:
    assert rejected(rate=rate).startswith(text)


@pytest.mark.parametrize(
    ("rates", "useless", "by"),
    [
        (["10/s", {"rate": "1000/h", "burst": 1}], "10/s", "1000/h"),
        (["1000/h", "10/s"], "10/s", "1000/h"),
        (["10/s", "10/s"], "10/s", "10/s"),
        (["10/s", {"rate": "600/m", "burst": 5}], "10/s, burst 5", "10/s"),
        ([{"rate": "10/s", "burst": 20}, {"rate": "1000/h", "burst": 20}], "10/s, burst 20", "1000/h, burst 20"),
        (["10/s", {"rate": "1000/h", "burst": 20}, "5/s"], "10/s", "5/s"),
        ([{"rate": f"{n}/d", "window": "fixed"} for n in (5, 6)], "6/d fixed", "5/d fixed"),
        ([{"rate": f"5/{period}", "window": "fixed"} for period in ("d", "24h")], "5/d fixed", "5/d fixed"),
        ([{"rate": f"{n}/d", "window": "sliding"} for n in (5, 6)], "6/d sliding", "5/d sliding"),
        (
            ["1/s", *({"rate": f"{n}/month", "window": "fixed", "timezone": LOS_ANGELES} for n in (9, 8))],
            f"9/month fixed, {LOS_ANGELES}",
            f"8/month fixed, {LOS_ANGELES}",
        ),
    ],
)
def test_a_limit_that_another_one_makes_useless(rates: list[Any], useless: str, by: str) -> None:
    assert rejected(rate=rates) == (
        f"rate = {rates!r:.80}: {useless} has no effect beside {by}, which is never faster: leave it out"
    )


def test_quotas_of_different_windows_all_count() -> None:
    """None of them makes another one useless, whatever their numbers, and no smooth one does."""
    rates = [
        {"rate": "100/d", "window": "fixed"},
        {"rate": "100/d", "window": "fixed", "offset": "9h"},
        {"rate": "200/d", "window": "sliding"},
        {"rate": "100/d", "burst": 100},
    ]

    assert len(read_one(rate=rates, tasks=["a"]).limits) == 4


FIXED: dict[str, Any] = {"rate": "100/d", "window": "fixed"}
REFILLS: dict[str, Any] = {"window": crontab(minute=0), "amount": 50, "maximum": 100}
EXAMPLE = "{'window': crontab(minute=0), 'amount': 1000, 'maximum': 1000}"


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        ({**FIXED, "window": "fix"}, "window = 'fix': did you mean 'fixed'?"),
        ({**FIXED, "window": "smoth"}, "window = 'smoth': did you mean 'smooth'?"),
        ({**FIXED, "window": "calendar"}, "window = 'calendar': use 'smooth' or 'fixed' or 'sliding', or a crontab"),
        ({**FIXED, "window": 5}, "window = 5: use 'smooth' or 'fixed' or 'sliding', or a crontab"),
        ({**FIXED, "window": ""}, "window = '': use 'smooth' or 'fixed' or 'sliding', or a crontab"),
        ({**FIXED, "window": {}}, "window = {}: use 'smooth' or 'fixed' or 'sliding', or a crontab"),
        ({**FIXED, "burst": 5}, "burst = 5: all N of a fixed window may start at once: leave it out"),
        ({**FIXED, "burst": 1}, "burst = 1: all N of a fixed window may start at once: leave it out"),
        (
            {**FIXED, "window": "sliding", "burst": 5},
            "burst = 5: all N of a sliding window may start at once: leave it out",
        ),
        (
            {**FIXED, "window": "sliding", "offset": "9h"},
            "offset = '9h': it is for fixed windows: add 'window': 'fixed'",
        ),
        (
            {"rate": "100/month", "window": "sliding"},
            "rate = '100/month': months differ in length: add 'window': 'fixed', or use N/d",
        ),
        ({"rate": "100/d", "offset": "9h"}, "offset = '9h': it is for fixed windows: add 'window': 'fixed'"),
        ({"rate": "100/d", "offset": 0}, "offset = 0: it is for fixed windows: add 'window': 'fixed'"),
        (
            {"rate": "100/d", "window": "smooth", "timezone": "UTC"},
            "timezone = 'UTC': it is for fixed windows: add 'window': 'fixed'",
        ),
        ("100/month", "rate = '100/month': months differ in length: add 'window': 'fixed', or use N/d"),
        ({"rate": "1/3month"}, "rate = '1/3month': months differ in length: add 'window': 'fixed', or use N/d"),
        ({**REFILLS, "rate": "5/m"}, "rate = '5/m': a crontab has an amount and a maximum instead: leave it out"),
        (
            {**REFILLS, "burst": 5},
            "burst = 5: what comes by a crontab may start at once, up to the maximum: leave it out",
        ),
        ({**REFILLS, "offset": "9h"}, "offset = '9h': it is for fixed windows: add 'window': 'fixed'"),
        ({**FIXED, "amount": 5}, f"amount = 5: it is for refills by a crontab: {EXAMPLE}"),
        ({"rate": "5/m", "maximum": 5}, f"maximum = 5: it is for refills by a crontab: {EXAMPLE}"),
    ],
)
def test_a_field_of_another_window(rate: Any, text: str) -> None:
    sep = "" if text.startswith("rate = ") else "rate: "

    assert rejected(rate=rate) == f"{sep}{text}"
    assert rejected(rate=["10/s", rate]) == f"{sep}{text}"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"amount": None}, "amount None is invalid: use a whole number of tokens from 1 on"),
        ({"amount": 0}, "amount 0 is invalid: use a whole number of tokens from 1 on"),
        ({"amount": True}, "amount True is invalid: use a whole number of tokens from 1 on"),
        ({"maximum": "many"}, "maximum 'many' is invalid: use a whole number of tokens from 1 on"),
        ({"maximum": 49}, "amount 50 does not go with maximum 49: use a maximum from 1 to 100 times the amount"),
        ({"maximum": 5001}, "amount 50 does not go with maximum 5001: use a maximum from 1 to 100 times the amount"),
        ({"timezone": "Nowhere"}, "timezone 'Nowhere' is not known: use a name such as 'America/Los_Angeles'"),
        (
            {"window": crontab(minute=0, hour=0, day_of_month=29, month_of_year=2, day_of_week=1)},
            "crontab '0 0 29 2 1' comes less often than every eight years",
        ),
    ],
)
def test_refills_that_cannot_be_meant(fields: dict[str, Any], text: str) -> None:
    assert rejected(rate={**REFILLS, **fields}) == f"rate: {text}"


def test_one_crontab_twice_is_refused() -> None:
    """Neither is without effect, but they would share one state. Another crontab has its own."""
    more = {**REFILLS, "amount": 20, "maximum": 200}
    one, other = ("50/refill at 0 * * * *, at most 100", "20/refill at 0 * * * *, at most 200")

    assert rejected(rate=[REFILLS, more]).endswith(f"{other} and {one} are the same refills: keep one of them")
    conf = {"global_rate_buckets": {"api": {"rate": [REFILLS, {**more, "window": crontab()}], "tasks": ["a"]}}}
    assert len(set(read_named_buckets(conf)["api"].windows)) == 2


def test_a_crontab_in_the_time_zone_of_each_machine_is_refused() -> None:
    """That is where beat takes it then; but workers may be in several."""
    entries = {"api": {"rate": REFILLS, "tasks": ["a"]}}
    with pytest.raises(ImproperlyConfigured) as refusal:
        read_named_buckets({"enable_utc": False, "global_rate_buckets": entries})

    assert str(refusal.value) == (
        "global_rate_buckets, api: rate: a crontab needs one time zone for all workers: add 'timezone', as enable_utc "
        "is False and the application has none"
    )


@pytest.mark.parametrize(
    ("conf", "fields", "zone"),
    [
        ({}, {}, ""),
        ({"enable_utc": False}, {"timezone": "Europe/Berlin"}, "Europe/Berlin"),
        ({"enable_utc": False, "timezone": "Europe/Berlin"}, {}, "Europe/Berlin"),
        ({"timezone": "Europe/Berlin"}, {}, "Europe/Berlin"),
        ({"timezone": ZoneInfo("Europe/Berlin")}, {}, "Europe/Berlin"),
        ({"timezone": "Europe/Berlin"}, {"timezone": "Asia/Tokyo"}, "Asia/Tokyo"),
    ],
)
def test_a_crontab_is_meant_in_the_time_zone_of_the_application(
    conf: dict[str, Any], fields: dict[str, Any], zone: str
) -> None:
    entries = {"api": {"rate": {**REFILLS, **fields}, "tasks": ["a"]}}
    bucket = read_named_buckets({**conf, "global_rate_buckets": entries})["api"]
    (limit,) = bucket.limits
    limits, text = parse_rates("30/refill", [Kept.of(limit)])

    assert limit == Limit.refilled(crontab(minute=0), 50, 100, zone or None)
    assert bucket.windows == (f"crontab-0_*_*_*_*{'-' + zone if zone else ''}",)
    assert text == f"30/refill at 0 * * * *{' ' + zone if zone else ''}, at most 100"
    change = set_limits(limits, text, bucket.limits)
    assert LimitOverride.of({**change["limit"], "when": 1}).limits == limits
    assert LimitOverride.of({**change["limit"], "when": 1}).fits(bucket.limits)


@pytest.mark.parametrize(
    ("fields", "named", "remedy"),
    [
        ({"offset": "24h"}, "offset '24h'", "use a shorter one"),
        ({"offset": 86400}, "offset 86400", "use a shorter one"),
        ({"rate": "100/month", "offset": "28d"}, "offset '28d'", "use a shorter one"),
        ({"offset": "soon"}, "offset 'soon'", "use "),
        ({"offset": -1}, "offset -1", "use "),
        ({"offset": "9h", "timezone": LOS_ANGELES}, f"offset '9h' and timezone '{LOS_ANGELES}'", "use one"),
        ({"timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus'", "use "),
        ({"timezone": 5}, "timezone 5", "use "),
        ({"rate": "100/h", "timezone": LOS_ANGELES}, f"timezone '{LOS_ANGELES}'", "days"),
        ({"rate": "100/0s"}, "period '0s'", "use "),
        ({"rate": "100/0.5s"}, "period '0.5s'", "use "),
        ({"rate": "100/ms"}, "period 'ms'", "use "),
        ({"rate": "100/w"}, "period 'w'", "use "),
        ({"rate": "0.5/d"}, "'0.5/d'", "a whole N"),
        ({"rate": "0/d"}, "'0/d'", "a whole N"),
        ({"rate": "-5/d"}, "'-5/d'", "a whole N"),
        ({"rate": "1000000001/d"}, "'1000000001/d'", "a whole N"),
        ({"rate": "100"}, "'100'", "use "),
        ({"rate": 100}, "100", "use "),
        ({"rate": True}, "True", "use "),
        ({"rate": []}, "[]", "use "),
    ],
)
def test_a_quota_that_cannot_be_meant(fields: dict[str, Any], named: str, remedy: str) -> None:
    """Each refusal names the field, what is written there, and what to write."""
    text = rejected(rate={**FIXED, **fields})

    assert text.startswith("rate: ")
    assert named in text
    assert remedy in text.split(named)[1]


@pytest.mark.parametrize("field", ["tasks", "queues"])
@pytest.mark.parametrize("names", ["crm.*", b"a", [], (), set(), [""], ["a", 5], ["a", None], {"a": 1}, 5, True])
def test_names_that_are_no_list_of_texts(field: str, names: Any) -> None:
    """A single text is refused: a list of one is as easy to write, and the list that it once becomes is longer."""
    remedy = f"use a list of the names of {field}, with one name at least"

    assert rejected(**{field: names}) == f"{field} = {names!r:.80}: {remedy}"


def test_a_bucket_for_nothing() -> None:
    text = f"{SETTING}, api: tasks = None: name the tasks, or the queues, that it is for"

    assert refusal({"api": {"rate": "1/s"}}) == refusal({"api": {"rate": "1/s", "tasks": None, "queues": None}}) == text


def test_a_name_that_is_a_task() -> None:
    """Orders are by name: `set crm.sync 5/s` would mean either of the two."""
    app = application({"crm.sync": CRM})
    app.task(shared=False, name="crm.sync")(sync)

    with pytest.raises(ImproperlyConfigured, match=f"{SETTING}: 'crm.sync' is the name of a task as well: .*rename"):
        check(app)


@pytest.mark.parametrize(
    ("rate_limit", "queues", "text"),
    [
        (None, ["crm", "other"], None),
        ("1/s", ["x", "y"], None),
        ("1/s", ["crm", "other"], "task crm.sync from queue crm has to pass 7 limits, its own and those of a, b, c:"),
    ],
)
def test_more_limits_than_a_request_may_pass(rate_limit: str | None, queues: list[str], text: str | None) -> None:
    """Buckets by task are passed with any queue, those by queue only with theirs."""
    two = ["10/s", {"rate": "1000/h", "burst": 100}]
    app = application(
        {
            "a": {"rate": two, "tasks": ["crm.*"]},
            "b": {"rate": two, "queues": queues[:1]},
            "c": {"rate": two, "queues": ["crm"], "tasks": ["none.*"]},
        }
    )
    app.task(shared=False, name="crm.sync", rate_limit=rate_limit)(sync)

    if text is None:
        check(app)
        return
    with pytest.raises(ImproperlyConfigured) as refused:
        check(app)
    assert str(refused.value).startswith(f"{SETTING}: {text} 6 is the most, so leave some out of 'tasks' or 'queues'")


def test_a_thousand_tasks_and_a_hundred_buckets_are_checked_within_seconds() -> None:
    """Each of 200 patterns is tried once with each task: 200,000 tries of a microsecond or two.

    With each of the 201 queues as well they would be 40 million.
    """
    entries = {
        f"api{n}": {"rate": "1/s", "tasks": [f"app{n}.*", f"lib{n}.?"], "queues": [f"q{n}", f"r{n}"]}
        for n in range(100)
    }
    named = read(entries)
    begin = time.process_time()
    check_against_tasks(named, [f"app{n % 100}.task{n}" for n in range(1000)], lambda task: ())

    assert time.process_time() - begin < 5


def test_the_manual_has_the_example_and_the_errors_as_they_are() -> None:
    manual = (Path(__file__).parents[1] / "docs" / "configuration.rst").read_text()
    chapter = manual.split("``global_rate_buckets``\n~~~~")[1].split("\n----")[0]
    app = application(None)
    exec(dedent(chapter.split("code-block:: python\n")[1].split("\nA dictionary")[0]), {"app": app})
    assert read_named_buckets(app.conf) == read({"crm-api": CRM})

    two = ["10/s", {"rate": "1000/h", "burst": 100}]
    full = {name: {"rate": two, "queues": ["crm"]} for name in "abc"}
    wrong: list[Any] = [
        [],
        {"crm api": CRM},
        {"crm.sync": CRM},
        {"crm-api": {"rate": "1/s", "task": ["crm.*"]}},
        {"crm-api": {**CRM, "burst": 5}},
        {"crm-api": {**CRM, "timezone": "UTC"}},
        *(
            {"crm-api": {**CRM, "rate": {"rate": "100/d", "window": "fixed", **fields}}}
            for fields in (
                {"window": "fix"},
                {"burst": 5},
                {"window": None, "offset": "9h"},
                {"offset": "36h"},
                {"offset": "9h", "timezone": "Europe/Berlin"},
                {"timezone": "California"},
                {"rate": "100/h", "timezone": "Europe/Berlin"},
                {"rate": "0.5/d"},
                {"rate": "10/0.5s"},
                {"rate": "10000/month", "window": "smooth"},
            )
        ),
        {"crm-api": {**CRM, "rate": "10/x"}},
        {"crm-api": {**CRM, "rate": None}},
        {"crm-api": {**CRM, "rate": ["10/s", "1000/h"]}},
        {"crm-api": {**CRM, "tasks": "crm.*"}},
        {"crm-api": {"rate": "1/s"}},
        {"crm-api": {**CRM, "key": "headers.id"}},
        *({"crm-api": {**CRM, "cost": cost}} for cost in (0, 1.5, "headers.id", "headers.global_rate_cost")),
        {"crm-api": {**CRM, "backoff": 0}},
        full,
    ]
    errors = []
    for buckets in wrong:
        with pytest.raises(ImproperlyConfigured) as refused:
            check_against_tasks(read(buckets), ["crm.sync"], lambda task: DECLARED)
        errors.append(f"   {refused.value}")
    assert chapter.split("Errors::\n\n")[1].split("\n\n")[0].splitlines() == errors


# Random configurations, and what they mean by the contract alone.

TASKS = ["crm.sync", "crm.push", "mail.send", "mail", "report", "celery.chord_unlock", "celery.backend_cleanup"]
QUEUES = ["crm", "mail", "bulk"]
PATTERNS = [*TASKS, "*", "crm.*", "*.send", "celery.*", "c*", "?ail", "mail.????", "nothing.*"]
BURSTS = [1, 5, 20, 200]
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DECLARED: Limits = (Limit(1_000_000),)
#: What cannot be meant, by field: the entry is broken by one of them.
MISTAKES: dict[str, list[Any]] = {
    "rate": [None, 0, "", "none", "10/x", "10/0s", "-1/s", [], [None], {"burst": 3}, "1/9000d", True, ["1/s"] * 5],
    "tasks": ["crm.*", [], [""], [5], {"crm.*": 1}, 7, ["crm.*", None]],
    "queues": ["crm", (), [b"crm"], 0, True],
    "key": ["", "headers.", "headers.id", 5, ["tenant"], True],
    "window": ["fixed"],
    "cost": ["", "headers.", "headers.eta", "headers.global_rate_cost", 0, -1, 2.0, True, [5], 10**9 + 1],
    "backoff": ["", "soon", 0, -1, [60], float("nan")],
    "costs": [5],
    "burts": [5],
}
#: The same, by field of a rate that would be fine but for it.
RATE_MISTAKES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "burst": ({"rate": "1/s"}, [0, -1, 1.5, "3", True, 10**7]),
    "window": ({"rate": "1/d"}, ["fix", "slide", "SMOOTH", 5, True, ["fixed"]]),
    "offset": ({"rate": "1/d", "window": "fixed"}, ["24h", "2d", 86400, "soon", "-1h", True, [], "1.5h"]),
    "timezone": ({"rate": "1/d", "window": "fixed"}, ["Mars/Olympus", "berlin", 5, True, "", "+02:00", "..", []]),
    "rate": (
        {"window": "fixed"},
        [None, 5, "5", "0/d", "1.5/d", "5/w", "5/0s", "5/months", "2000000000/d", "-1/d", "x/d"],
    ),
    "bursts": ({"rate": "1/s"}, [5]),
}
#: Fields that a rate of this window cannot have, whatever their value.
MISPLACED: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "burst": ({"rate": "1/d", "window": "fixed"}, [1, 5]),
    "offset": ({"rate": "1/d"}, ["9h", 1]),
    "timezone": ({"rate": "1/d", "window": "smooth"}, ["UTC", LOS_ANGELES]),
}
#: Periods of fixed windows as they may be written, and as the key has them; their lengths in seconds.
CALENDARS = {
    "10s": ("10s", 10),
    "60s": ("m", 60),
    "h": ("h", 3600),
    "60m": ("h", 3600),
    "2h": ("2h", 7200),
    "d": ("d", 86400),
    "1d": ("d", 86400),
    "24h": ("d", 86400),
    "7d": ("7d", 7 * 86400),
    "month": ("month", 28 * 86400),
    "1month": ("month", 28 * 86400),
    "3month": ("3month", 84 * 86400),
}
OFFSETS: list[tuple[Any, str, int]] = [
    ("5s", "5s", 5),
    (1800, "30m", 1800),
    ("540m", "9h", 32400),
    ("4d", "4d", 345600),
]
ZONES = [LOS_ANGELES, "Europe/Berlin", "Asia/Beirut"]


class MeantLimit(NamedTuple):
    """What a rate means.

    Attributes:
        ps: T in picoseconds of a smooth one; 0 of a quota.
        burst: or N of a quota.
        window: of a quota, as the key in Redis has it; empty for a smooth one.
    """

    ps: int
    burst: int
    window: str = ""


class Meant(NamedTuple):
    """What a bucket of a random configuration means: its limits, and what it is for."""

    limits: list[MeantLimit]
    tasks: list[str]
    queues: list[str]

    def covers(self, task: str, queue: str | None) -> bool:
        is_celerys = task.startswith("celery.")
        patterns = [it for it in self.tasks if it.startswith("celery.") or not is_celerys]
        return queue in self.queues or any(is_like(task, pattern) for pattern in patterns)


def is_like(text: str, pattern: str) -> bool:
    """A glob of `*`, `?` and letters, by its definition."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(is_like(text[cut:], pattern[1:]) for cut in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and is_like(text[1:], pattern[1:])


def a_rate(chance: random.Random) -> tuple[Any, int]:
    """A rate as the setting may have it, and its T in picoseconds."""
    starts, count, unit = chance.choice([1, 3, 10, 1000, 9999]), chance.choice([1, 1, 7, 30]), chance.choice("smhd")
    rate: Any = f"{starts}/{'' if count == 1 and chance.random() < 0.9 else count}{unit}"
    if (count, unit) == (1, "s") and chance.random() < 0.5:
        rate = chance.choice([starts, float(starts), str(starts)])
    return rate, ceil(Fraction(count * UNITS_S[unit] * 10**12, starts))


def a_quota(chance: random.Random) -> tuple[dict[str, Any], MeantLimit]:
    """A rate with a fixed or sliding window as the setting may have it, and what it means."""
    starts, (period, (name, length_s)) = chance.choice([1, 100, 10_000, 10**6]), chance.choice(list(CALENDARS.items()))
    rate: dict[str, Any] = {"rate": f"{starts}/{period}", "window": "fixed"}
    if "month" not in period and chance.random() < 0.3:
        return {**rate, "window": "sliding"}, MeantLimit(0, starts, f"sliding-{name}")
    possible = [offset for offset in OFFSETS if offset[2] < length_s]
    if possible and chance.random() < 0.4:
        rate["offset"], spelled, _ = chance.choice(possible)
        name += f"+{spelled}"
    elif length_s % 86400 == 0 and chance.random() < 0.5:
        rate["timezone"] = chance.choice(ZONES)
        name += f"-{rate['timezone']}"
    return rate, MeantLimit(0, starts, f"fixed-{name}")


def an_entry(chance: random.Random) -> tuple[dict[str, Any], Meant]:
    """Mostly with larger bursts for slower rates, as it has to be, and often with a quota."""
    quotas = [a_quota(chance) for _ in range(chance.choice([0, 0, 0, 1, 1, 2]))]
    rates = [a_rate(chance) for _ in range(chance.choice([not quotas, 1, 1, 2, 2, 3, 4][: 7 - 2 * len(quotas)]))]
    bursts = [chance.choice(BURSTS) for _ in rates]
    if chance.random() < 0.9:
        rates.sort(key=lambda it: it[1])
        bursts = sorted(chance.sample(BURSTS, len(rates)))
    rows = list(zip(rates, bursts))
    pairs = [
        ({"rate": rate, "burst": burst} if burst > 1 or chance.random() < 0.3 else rate, MeantLimit(interval_ps, burst))
        for (rate, interval_ps), burst in rows
    ] + quotas
    chance.shuffle(pairs)
    written, limits = [rate for rate, _ in pairs], [limit for _, limit in pairs]
    for rate in written:
        if isinstance(rate, dict) and "window" not in rate and chance.random() < 0.2:
            rate.update(chance.choice([{"window": "smooth"}, {"window": None, "offset": None}, {"timezone": None}]))
    tasks = chance.sample(PATTERNS, chance.choice([0, 1, 1, 2, 3]))
    queues = chance.sample(QUEUES, chance.choice([0, 0, 1, 2])) or ([] if tasks else ["crm"])
    entry: dict[str, Any] = {"rate": written[0] if len(written) == 1 and chance.random() < 0.7 else written}
    for field, names in (("tasks", tasks), ("queues", queues)):
        if names:
            entry[field] = chance.choice([list, tuple, set])(names)
        elif chance.random() < 0.2:
            entry[field] = None
    if chance.random() < 0.3:
        entry["key"] = chance.choice(["tenant", "headers.tenant", None])
    if chance.random() < 0.3:
        entry["cost"] = chance.choice([1, 7, "tokens", "headers.tokens", None])
    if chance.random() < 0.2:
        entry["backoff"] = chance.choice([True, False, 60, "5m", None])
    return entry, Meant(limits, tasks, queues)


def break_one(chance: random.Random, entry: dict[str, Any]) -> str:
    """Make an entry one that cannot be meant.

    Returns:
        The field.
    """
    if chance.random() < 0.5:
        field = chance.choice(list(MISTAKES))
        entry[field] = chance.choice(MISTAKES[field])
        return field
    mistakes = chance.choice([RATE_MISTAKES, MISPLACED])
    field = chance.choice(list(mistakes))
    rate, values = mistakes[field]
    entry["rate"] = [{**rate, field: chance.choice(values)}]
    return field


def most_passed(buckets: dict[str, Meant], declared: dict[str, Limits]) -> int:
    return max(
        len(declared.get(task, ()))
        + sum(len(bucket.limits) for bucket in buckets.values() if bucket.covers(task, queue))
        for task in TASKS
        for queue in (None, *QUEUES)
    )


def is_useless(slow: MeantLimit, fast: MeantLimit) -> bool:
    """Whether the second limit never binds: in no time, short or long, does it allow less than the first.

    Of quotas that is asked only of the same windows, and a smooth one beside a quota always counts.
    """
    if slow.window or fast.window:
        return slow.window == fast.window and fast.burst >= slow.burst
    return all(fast.burst + Fraction(ps, fast.ps) >= slow.burst + Fraction(ps, slow.ps) for ps in (0, 10**30))


#: What limits that are well written may get wrong, by words of the refusal.
WHOLE_MISTAKES: dict[str, Callable[[Meant], bool]] = {
    "has no effect beside": lambda meant: any(is_useless(x, y) for x, y in permutations(meant.limits, 2)),
    "over ten years": lambda meant: any(it.ps * it.burst > 3650 * 86400 * 10**12 for it in meant.limits),
}


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_random_configuration_is_refused_by_bucket_and_field_or_means_what_it_says(
    figures: Figures, count: int
) -> None:
    """An oracle that does not parse: it has the numbers of which the rates were written, and globs by definition."""
    chance = random.Random(2026 + count)
    ends: Counter[str] = Counter()
    for _ in range(count):
        names = chance.sample(["api", "crm-api", "daily", "q.1"], chance.randint(1, 4))
        pairs = {name: an_entry(chance) for name in names}
        entries, meant = {name: pairs[name][0] for name in names}, {name: pairs[name][1] for name in names}
        declared = {task: DECLARED for task in TASKS if chance.random() < 0.3}
        broken = chance.choice(names) if chance.random() < 0.3 else None
        field = break_one(chance, entries[broken]) if broken else ""
        expected = [(broken, field, "")] if broken else []
        expected += [
            (name, "rate", words)
            for name, bucket in meant.items()
            for words, is_so in WHOLE_MISTAKES.items()
            if is_so(bucket)
        ]
        most = most_passed(meant, declared)
        try:
            named = read(entries)
            check_against_tasks(named, TASKS, lambda task, declared=declared: declared.get(task, ()))  # type: ignore[misc]
        except ImproperlyConfigured as exc:
            text = str(exc)
            here = [it for it in expected if text.startswith(f"{SETTING}, {it[0]}: ")]
            matching = [words for _, field, words in here if field in text and words in text]
            if not matching:
                assert not expected, (entries, text)
                assert most > 6, (entries, text)
                assert re.search(r"has to pass ([7-9]|1\d) limits, its own and those of .*'tasks' or 'queues'", text)
            ends[(matching[-1] or "broken") if matching else "too many"] += 1
            continue
        ends["read"] += 1
        assert not expected, entries
        assert most <= 6, entries
        assert list(named) == names
        for name, bucket in meant.items():
            for limit, meant_limit in zip(named[name].limits, bucket.limits):
                calendar = limit.window.key if limit.window else ""
                assert MeantLimit(0 if calendar else limit.exact_ps, limit.burst, calendar) == meant_limit
            assert len(named[name].limits) == len(bucket.limits)
            assert named[name].key == entries[name].get("key")
            assert named[name].cost == entries[name].get("cost")
            by_interval = sorted(it.ps for it in bucket.limits if not it.window)
            windows = ["smooth", "smooth2", "smooth3", "smooth4"]
            expected_windows = [it.window or windows[by_interval.index(it.ps)] for it in bucket.limits]
            assert list(named[name].windows) == expected_windows
            for task in TASKS:
                for queue in (None, *QUEUES):
                    assert named[name].covers(task, queue) == bucket.covers(task, queue), (entries, name, task, queue)
    figures(f"{count} configurations: {dict(ends)}")

    assert all(ends[end] >= count / 100 for end in ("read", "broken", "too many", *WHOLE_MISTAKES)), ends
