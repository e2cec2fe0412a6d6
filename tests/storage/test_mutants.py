"""Whether the tests notice errors in the Lua."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import redis

from . import test_bookings, test_heartbeat, test_override_scripts, test_scripts
from .mutate import MUTANTS, Mutant, originals, sources
from .replay import SOURCES, Bucket, random_history, replay

#: The tests that need a bucket and nothing else.
SENTENCES: list[Callable[[Bucket], None]] = [
    test
    for module in (test_scripts, test_bookings, test_override_scripts, test_heartbeat)
    for name, test in vars(module).items()
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["bucket"]
]


def live(bucket: Bucket) -> None:
    """Live through some histories that are always the same."""
    for seed in range(6):
        bucket.lose()
        for _ in replay(bucket, random_history(seed, 200)):
            pass


def complaint(client: redis.Redis, scripts: dict[str, str]) -> str | None:
    """The first test that these scripts fail, or None."""
    for test in [*SENTENCES, live]:
        client.flushdb()
        try:
            test(Bucket(client, scripts))
        except (AssertionError, redis.ResponseError, ValueError, IndexError, KeyError, TypeError):
            return test.__name__
    return None


@pytest.fixture(autouse=True)
def nothing_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep pytest from writing out, as it does under CI, how two lists of ten thousand differ: it takes minutes."""
    for variable in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(variable, raising=False)


def test_the_scripts_as_they_are_pass(redis_client: redis.Redis) -> None:
    assert len(SENTENCES) > 40
    assert complaint(redis_client, SOURCES) is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.why)
def test_a_mutant_is_killed(redis_client: redis.Redis, mutant: Mutant) -> None:
    assert originals()[mutant.file].count(mutant.old) == 1, "the Lua was edited: edit the mutant as well"
    assert complaint(redis_client, sources(mutant)), f"no test notices: {mutant.why}"
