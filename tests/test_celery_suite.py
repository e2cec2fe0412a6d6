"""How `make celery-suite` judges, and that it ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from testbed.server import redis_binary

from .celery_suite.compare import Difference, Piece, in_pieces
from .celery_suite.side import Run, Side

#: One that passes, one that fails, one that hangs, one that ends its process, and one for the worker after all these.
TESTS = """
import logging, os, time

def test_passes():
    pass

def test_fails():
    raise ValueError("what was wrong")

def test_hangs():
    logging.warning("the worker says this")
    time.sleep(600)

def test_dies():
    os._exit(3)

def test_after_all():
    pass
"""


@pytest.mark.parametrize(
    ("stock", "ours", "is_real"),
    [
        ("passed passed passed", "failed failed failed", True),
        ("passed passed passed", "hung passed hung", True),
        ("passed passed passed", "failed passed passed", False),
        ("passed failed passed", "failed passed failed", False),  # no steadier on stock
        ("passed failed passed", "failed failed failed", True),
        ("failed passed passed", "passed passed passed", False),
        ("failed failed failed", "passed passed passed", True),
        ("failed failed failed", "hung hung hung", True),
        ("passed passed passed", "failed not-run not-run", True),
    ],
)
def test_what_is_seen_again_is_a_difference(stock: str, ours: str, is_real: bool) -> None:
    assert Difference("t", stock.split(), ours.split(), "", "").is_real is is_real


def test_limits_that_are_not_in_force_are_noticed() -> None:
    def is_limited(received: int, released: int, slots: int) -> bool:
        return Piece("redis", [], Run(), Run(received=received, released=released, slots=slots)).is_limited

    assert is_limited(20, 18, 18)
    assert is_limited(0, 0, 0)  # its tests start no task
    assert not is_limited(20, 0, 0)
    assert not is_limited(20, 20, 0)


def test_no_test_is_left_out_or_moved() -> None:
    tests = [f"{name}::test_{number}" for name, count in (("a.py", 41), ("b.py", 1)) for number in range(count)]
    pieces = in_pieces(tests)

    assert [test for piece in pieces for test in piece] == tests
    assert [len(piece) for piece in pieces] == [13, 14, 14, 1]


@pytest.mark.slow
def test_what_hangs_or_dies_ends_by_itself_and_the_others_run(tmp_path: Path) -> None:
    """Hanging for 3 s is enough: five tests by four sessions of about a second, and one more that is waited for.

    Below 30 s in all, where the one that hangs would take ten minutes.
    """
    if redis_binary() is None:
        pytest.skip("no Redis of our own to run")
    folder, logs = tmp_path / "source" / "t" / "integration", tmp_path / "logs"
    folder.mkdir(parents=True)
    logs.mkdir()
    (folder / "test_some.py").write_text(TESTS)
    begin = time.monotonic()
    side = Side(tmp_path / "source", "redis", False, logs, hangs_s=3.0)
    try:
        tests, unreadable = side.start().collect(["test_some.py", "test_none.py"], "")
        run = side.run(tests)
    finally:
        side.close()

    assert time.monotonic() - begin < 30
    assert [run.outcomes[test] for test in tests] == ["passed", "failed", "hung", "died", "passed"]
    assert run.reasons[tests[1]] == "ValueError: what was wrong"
    log = run.logs[tests[2]].read_text()
    assert "the worker says this" in log
    assert "in test_hangs" in log  # where it hung
    assert len(unreadable) == 1
    assert unreadable[0].startswith("test_none.py: ")
