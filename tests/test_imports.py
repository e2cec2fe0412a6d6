"""The arrows between the modules of the package, read from their source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "celery_global_rate"

#: What each module may import of its siblings. The lower layers come first, and know nothing of those after them.
ARROWS: dict[str, set[str]] = {
    "version": set(),
    "duration": set(),
    "limit": set(),
    "clock": set(),
    "record": {"clock", "limit"},
    "reservation": {"clock", "limit"},
    "faults": set(),
    "held_queue": set(),
    "bucket": {"clock", "faults", "held_queue", "limit", "reservation"},
    "pace": {"bucket"},
    "pool": {"limit", "pace"},
    "script": {"bucket", "limit", "reservation"},
    "scheduler": {"bucket", "faults", "limit", "pool", "reservation"},
    "chores": {"faults"},
    "cause": set(),
    "server": set(),
    "policy": {"bucket", "clock", "limit", "reservation"},
    "outage": {"bucket", "cause", "duration", "limit", "policy", "server"},
    "limiter": {"bucket", "clock", "limit", "outage", "policy", "reservation", "script"},
    "members": {"script"},
    "loop": set(),
    "line": set(),
    "connection": {"loop"},
    "orders": {"bucket", "clock", "limit", "record"},
    "news": {"connection", "loop", "members", "orders", "outage", "script"},
    "credit": set(),
    "aside": {"bucket", "clock"},
    "address": set(),
    "sentinel": {"address"},
    "cluster": {"address"},
    "inherited": {"address"},
    "credentials": set(),
    "settings": {"address", "cluster", "credentials", "inherited", "policy", "script", "sentinel"},
    "store": {"clock", "record", "script", "settings"},
    "declared": {"limit"},
    "report": {"bucket", "clock", "declared", "duration", "limit", "record"},
    "broadcast": set(),
    "broker": set(),
    "sqs": set(),
    "patience": {"sqs"},
    "queues": {"broker"},
    "sweep": {"bucket"},
    "dismissals": {"bucket", "faults"},
    "results": set(),
    "recycling": set(),
    "lost_tasks": set(),
    "regulator": {
        *(
            "aside",
            "bucket",
            "chores",
            "clock",
            "connection",
            "credit",
            "faults",
            "limit",
            "limiter",
            "loop",
            "news",
            "orders",
        ),
        *(
            "dismissals",
            "members",
            "outage",
            "patience",
            "policy",
            "pool",
            "record",
            "scheduler",
            "script",
            "settings",
            "store",
            "sweep",
            "version",
        ),
    },
    "task_bucket": {"bucket", "limit", "regulator"},
    "control": {
        *("broadcast", "bucket", "cause", "declared", "limit"),
        *("record", "regulator", "report", "store", "task_bucket"),
    },
    "step": {
        *("broadcast", "broker", "bucket", "control", "declared", "limit", "line", "loop"),
        *("lost_tasks", "patience", "pool", "recycling", "queues", "regulator", "report", "results"),
        *("settings", "task_bucket"),
    },
    "switch": {"declared", "limit", "settings", "step"},
    "auto": {"switch"},
    "check": {"cause", "declared", "server", "settings", "version"},
    "desk": {"declared", "limit", "settings"},
    "overview": {"declared", "desk", "duration", "limit", "record", "store"},
    "commands": {"cause", "declared", "desk", "duration", "overview", "record", "report", "store"},
    "cli": {"check", "commands", "control", "switch"},
    "__init__": {"step", "switch", "version"},
}

#: What each module may import of others; all that is not here uses the standard library alone.
OUTSIDE: dict[str, set[str]] = {
    "cause": {"redis"},
    "inherited": {"kombu"},
    "credentials": {"kombu", "redis"},
    "loop": {"kombu"},
    "limiter": {"redis"},
    "connection": {"redis"},
    "address": {"celery"},
    "sentinel": {"redis"},
    "cluster": {"redis"},
    "settings": {"celery", "redis"},
    "news": {"redis"},
    "store": {"redis"},
    "outage": {"redis"},
    "declared": {"celery"},
    "patience": {"celery"},
    "queues": {"celery", "kombu"},
    "control": {"celery"},
    "lost_tasks": {"billiard", "celery"},
    "step": {"celery"},
    "switch": {"celery"},
    "check": {"celery", "kombu", "redis"},
    "desk": {"click"},
    "overview": {"kombu"},
    "commands": {"celery", "click"},
    "cli": {"celery", "click"},
}

LIBRARIES = {"amqp", "billiard", "celery", "click", "kombu", "redis", "vine"}


def imports(module: str) -> tuple[set[str], set[str]]:
    """The siblings and the full names of the other modules that a module imports, wherever in its text."""
    siblings: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            others.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            siblings.update([node.module] if node.module else [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom):
            others.update(f"{node.module}.{alias.name}" for alias in node.names)
    return siblings, others


def reached(module: str) -> set[str]:
    """A module and all siblings that come with it."""
    found, left = set(), {module}
    while left:
        found.add(name := left.pop())
        left |= imports(name)[0] - found
    return found


def test_every_module_has_its_place_in_the_picture() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(ARROWS)


@pytest.mark.parametrize("module", ARROWS)
def test_a_module_imports_only_the_siblings_below_it(module: str) -> None:
    order = list(ARROWS)
    siblings, _ = imports(module)

    assert siblings == ARROWS[module]
    assert all(order.index(sibling) < order.index(module) for sibling in siblings)


@pytest.mark.parametrize("module", ARROWS)
def test_a_module_imports_only_the_libraries_that_it_is_for(module: str) -> None:
    _, others = imports(module)

    assert {name.partition(".")[0] for name in others} & LIBRARIES == OUTSIDE.get(module, set())
    assert not any(name.startswith("celery_global_rate") for name in others)


def test_the_scheduler_brings_neither_redis_nor_celery_with_it() -> None:
    assert not {"celery", "kombu", "redis"} & set().union(*(OUTSIDE.get(name, set()) for name in reached("scheduler")))


def test_only_the_step_knows_the_insides_of_the_worker() -> None:
    knows = {module for module in ARROWS if any(name.startswith("celery.worker") for name in imports(module)[1])}

    assert knows == {"cli", "control", "step"}  # the step, and the remote commands
