"""What a request costs, without a worker."""

from __future__ import annotations

from typing import Any

import pytest

from celery_global_rate.limits.limit import Limit
from celery_global_rate.named_buckets import NamedBucket
from celery_global_rate.worker.costs import RequestCosts

from .test_keys import Odd, request

LIMITS = (Limit(1_000_000), Limit(60_000_000, 0, 10))


def bucket(name: str, cost: int | str | None, limits: tuple[Limit, ...] = LIMITS) -> NamedBucket:
    return NamedBucket(name, limits, ("ask",), (), cost=cost)


NAMED = {
    it.name: it
    for it in (
        bucket("plain", None),
        bucket("fixed", 5),
        bucket("tokens", "tokens"),
        bucket("sent", "headers.units"),
        bucket("quota", "tokens", (Limit.in_windows("10/d"),)),
    )
}
ALL = ("ask", *NAMED)


def ask(prompt: str, tokens: int = 7, **more: Any) -> None:
    """A task."""


def asking(*args: Any, headers: Any = None, run: Any = ask, **kwargs: Any) -> Any:
    found = request(run, args, kwargs, headers)
    found.task.name = "ask"
    return found


def cost(asked: Any, *names: str) -> Any:
    return RequestCosts(NAMED).read(asked, names)


def test_each_name_has_its_cost_in_the_order_of_the_lane() -> None:
    """A task's own limit, and a bucket without a cost, count starts."""
    asked = asking("hi", 30, headers={"units": 4})

    assert cost(asked, *ALL) == (1, 1, 5, 30, 4, 30)
    assert cost(asked, "tokens", "ask") == (30, 1)


def test_where_no_bucket_has_a_cost_nothing_is_read() -> None:
    assert cost(None, "ask", "plain") is None
    assert RequestCosts({}).read(None, ("ask",)) is None


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [(("hi", 30), {}, 30), (("hi",), {"tokens": 0}, 0), (("hi",), {}, 7), (("hi", 36_500), {}, 36_500)],
)
def test_an_argument_is_read_as_python_binds_it(args: Any, kwargs: Any, expected: int) -> None:
    assert cost(asking(*args, **kwargs), "quota") == (expected,)


def test_a_header_of_a_message_replaces_the_cost_where_there_is_one() -> None:
    asked = asking("hi", "many", headers={"global_rate_cost": 3})

    assert cost(asked, *ALL) == (1, 1, 3, 3, 3, 3)
    assert cost(asked, "ask", "plain") is None


def test_a_header_of_0_passes_every_limit_of_the_lane_by() -> None:
    """And an argument of 0 only its own bucket."""
    assert cost(asking("hi", headers={"global_rate_cost": 0}), *ALL) == (0,) * 6
    assert cost(asking("hi", 0, headers={"units": 2}), *ALL) == (1, 1, 5, 0, 2, 0)


@pytest.mark.parametrize("told", [None, {}])
@pytest.mark.parametrize("run", [lambda prompt: None, lambda prompt, **more: None, lambda prompt, tokens=None: None])
def test_a_message_that_says_nothing_costs_1_and_the_log_says_so_once_for_each_task(
    caplog: pytest.LogCaptureFixture, run: Any, told: Any
) -> None:
    """Such as `celery.chord_unlock` in a queue whose messages have a cost; it must not fail."""
    costs = RequestCosts(NAMED)
    for _ in range(2):
        assert costs.read(asking("hi", run=run, headers=told), ("ask", "tokens", "sent")) == (1, 1, 1)

    assert [record.message for record in caplog.records] == [
        "global-rate: bucket tokens: a message of ask has no tokens: it costs 1",
        "global-rate: bucket sent: a message of ask has no headers.units: it costs 1",
    ]


class OddRepr:
    """A value whose text is more than one line."""

    def __repr__(self) -> str:
        return "a\nb"


class NoRepr(Odd):
    """A value without any."""

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "True"),
        (False, "False"),
        (1.0, "1.0"),
        (float("nan"), "nan"),
        ("5", "'5'"),
        ("", "''"),
        (-1, "-1"),
        ([5], "[5]"),
        ({}, "{}"),
        ("x" * 200, "'" + "x" * 79),
        (OddRepr(), r"'a\nb'"),
        (NoRepr(), "<NoRepr>"),
    ],
)
def test_what_is_no_whole_number_is_an_error_that_names_all_there_is_to_know(value: Any, shown: str) -> None:
    for asked, name, field in (
        (asking("hi", value), "tokens", "tokens"),
        (asking("hi", headers={"units": value}), "sent", "headers.units"),
        (asking("hi", headers={"global_rate_cost": value}), "fixed", "headers.global_rate_cost"),
    ):
        with pytest.raises(ValueError) as bad:  # noqa: PT011 the text follows
            cost(asked, "ask", "plain", name)

        assert type(bad.value) is ValueError
        assert str(bad.value) == (
            f"task ask: its cost in bucket {name}, {field} = {shown}, is not a whole number >= 0: "
            f"send a number of units, such as 1"
        )


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ((Limit(3_600_000_000),), 87_600),
        ((Limit(1000), Limit(3_600_000_000, 0, 10)), 87_600),
        ((Limit.in_windows("10/d"),), 36_500),
        ((Limit.in_any("10/d"),), 10_000),
        ((Limit.in_any("5000/s"),), 5_000_000),
        ((Limit(10),), 10**9),
    ],
)
def test_a_number_that_would_never_be_paid_is_one_too(limits: tuple[Limit, ...], most: int) -> None:
    """Over ten years of a limit, over a thousand entries of a log in Redis, or more than any limit can count."""
    costs = RequestCosts({"b": bucket("b", "tokens", limits)})

    assert costs.read(asking("hi", most), ("b",)) == (most,)
    for value in (most + 1, 2**70):
        text = f"bucket b, tokens = {value}, is more than one start can take: send {most} at the most"
        with pytest.raises(ValueError, match=text):
            costs.read(asking("hi", value), ("b",))


def test_a_header_is_held_against_the_buckets_that_the_request_passes() -> None:
    """Another one may be slower."""
    named = {
        "fast": bucket("fast", 1, (Limit(10),)),
        "slow": bucket("slow", 1, (Limit(3_600_000_000),)),
    }
    asked = asking("hi", headers={"global_rate_cost": 100_000})

    assert RequestCosts(named).read(asked, ("fast",)) == (100_000,)
    with pytest.raises(ValueError, match="bucket slow"):
        RequestCosts(named).read(asked, ("fast", "slow"))
