"""What a request says of a key, without a worker."""

from __future__ import annotations

import inspect
import random
from types import SimpleNamespace
from typing import Any

import pytest

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.limit import Limit
from celery_global_rate.storage.scripts import bucket_key
from celery_global_rate.worker.keys import has_argument, key_value

NAMES = "abcd"


class Odd:
    """A value without a text."""

    def __str__(self) -> str:
        raise RuntimeError


def request(run: Any, args: Any = (), kwargs: Any = None, headers: Any = None, message: Any = None) -> Any:
    return SimpleNamespace(
        task=SimpleNamespace(run=run),
        args=args,
        kwargs={} if kwargs is None else kwargs,
        request_dict=headers or {},
        message=SimpleNamespace(headers=message or {}),
    )


def sync(tenant: str, count: int = 1, *, mode: str = "all", **more: Any) -> None:
    """A task."""


@pytest.mark.parametrize(
    ("key", "args", "kwargs", "expected"),
    [
        ("tenant", ("acme",), {}, "acme"),
        ("tenant", (), {"tenant": "acme"}, "acme"),
        ("tenant", (7,), {}, "7"),
        ("tenant", (), {}, None),
        ("tenant", (None,), {}, None),
        ("tenant", (["a", "b"],), {}, None),
        ("tenant", ({},), {}, None),
        ("tenant", (Odd(),), {}, None),
        ("count", ("acme",), {}, "1"),
        ("count", ("acme", 5), {}, "5"),
        ("mode", ("acme", 5), {}, "all"),
        ("mode", ("acme", 5, "x"), {}, "all"),
        ("region", ("acme",), {"region": "eu"}, "eu"),
        ("region", ("acme",), {}, None),
        ("tenant", ("a:b/c d#",), {}, "a%3Ab%2Fc%20d%23"),
        ("tenant", ("",), {}, ""),
        ("tenant", ("x" * 64,), {}, "x" * 64),
        ("tenant", ("x" * 65,), {}, "#d7e7a6d2ee5a8a7a2b4e1ab9d7b3d9e9f0d0f2ab"),
        ("tenant", None, None, None),
    ],
)
def test_the_value_of_an_argument(key: str, args: Any, kwargs: Any, expected: str | None) -> None:
    """By name, by its place, or its default; what is no value, or a container, is none."""
    found = key_value(request(sync, args, kwargs), key)

    if expected is not None and expected.startswith("#"):
        assert found is not None
        assert (len(found), found[0]) == (41, "#")
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("headers", "message", "expected"),
    [({"tenant": "acme"}, {}, "acme"), ({}, {"tenant": "acme"}, "acme"), ({}, {}, None), ({"tenant": 0}, {}, "0")],
)
def test_the_value_of_a_header(headers: Any, message: Any, expected: str | None) -> None:
    assert key_value(request(sync, headers=headers, message=message), "headers.tenant") == expected


def test_values_are_read_as_python_binds_them() -> None:
    """Random signatures and calls: what `inspect.Signature.bind` finds, if it accepts the call."""
    chance = random.Random(1)
    seen = 0
    for _ in range(1000):
        kinds = sorted(chance.choice((1, 1, 3)) for _ in NAMES)
        parameters = [
            inspect.Parameter(name, inspect._ParameterKind(kind), default=f"default {name}")
            for name, kind in zip(NAMES, kinds)
        ]

        def run(*args: Any, **kwargs: Any) -> None:
            """Anything."""

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        args = tuple(range(chance.randrange(4)))
        kwargs = {name: f"value {name}" for name in NAMES if chance.random() < 0.3}
        try:
            bound = inspect.signature(run).bind(*args, **kwargs)
        except TypeError:
            continue
        seen += 1
        bound.apply_defaults()
        for name in NAMES:
            expected = str(bound.arguments[name]).replace(" ", "%20")
            assert key_value(request(run, args, kwargs), name) == expected
    assert seen > 200


def test_no_two_buckets_have_one_key() -> None:
    """Whatever names and values there are: also those that look like a part of a key."""
    bucket = Bucket("api", "smooth", Limit(1))
    values = ["", "a", ":", "a:smooth2", "#", "#" + "0" * 40, "x" * 65, "x" * 66, "\0", "ä", "%C3%A4", "smooth", " "]
    values.append("\ud800")
    buckets = [bucket, Bucket("api", "smooth2", Limit(1)), Bucket("api", "", Limit(1))]
    buckets += [bucket.of(key_value(request(sync, (value,)), "tenant")) for value in values]
    keys = {bucket_key("p", it.name, it.window) for it in buckets}

    assert len(keys) == len(buckets)
    assert buckets[4].value == "a"


def test_which_tasks_have_an_argument() -> None:
    assert has_argument(SimpleNamespace(run=sync), "region")
    assert not has_argument(SimpleNamespace(run=lambda tenant: None), "region")
    assert not has_argument(SimpleNamespace(run=len), "tenant")
