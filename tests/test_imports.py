"""Which room of the package imports which, read from the source."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from docs.rooms import PURPOSE, ROOMS, TOP, drawing

ROOT = Path(__file__).parent.parent
PACKAGE = "celery_global_rate"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}
LIBRARIES = {"amqp", "billiard", "celery", "click", "kombu", "redis", "vine"}
#: What each room may import of them.
OUTSIDE: dict[str, set[str]] = {
    "storage": {"redis"},
    "broker": {"celery", "kombu"},
    "settings": {"celery", "kombu"},
    "worker": {"billiard", "celery", "kombu"},
    "client": {"celery"},  # for types
    "face": {"celery"},
    "cli": {"celery", "click", "kombu", "redis"},
}


def room_of(module: str) -> str:
    """The room that a module is in; those on top are in two."""
    _, first, *rest = module.split(".")
    if rest:
        return first
    return next(room for room, modules in TOP.items() if first in modules)


def imports(module: str) -> set[str]:
    """The full names of all that a module imports, wherever in its text."""
    package = module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            below = {f"{name}.{alias.name}" for alias in node.names}
            found |= (below & MODULES.keys()) or ({name} if name in MODULES else below)
    return {f"{name}.__init__" if f"{name}.__init__" in MODULES else name for name in found}


def siblings(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    return imports(module) & MODULES.keys()


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS) == set(PURPOSE)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_uses_only_rooms_below_it(room: str) -> None:
    order = list(ROOMS)
    used = {room_of(name) for module in MODULES if room_of(module) == room for name in siblings(module)} - {room}

    assert used == ROOMS[room]
    assert all(order.index(below) < order.index(room) for below in used)


def test_no_module_imports_itself_by_way_of_others() -> None:
    list(TopologicalSorter({module: siblings(module) for module in MODULES}).static_order())


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_libraries_that_it_is_for(room: str) -> None:
    """No Redis, Celery or clock in `limits` and `scheduling`: their time is virtual in the tests."""
    found = {name.partition(".")[0] for module in MODULES if room_of(module) == room for name in imports(module)}

    assert found & LIBRARIES == OUTSIDE.get(room, set())


def test_only_the_pool_and_the_commands_import_the_insides_of_the_worker() -> None:
    knows = {module for module in MODULES if any(name.startswith("celery.worker") for name in imports(module))}

    assert knows == {f"{PACKAGE}.{name}" for name in ("cli.main", "worker.control", "worker.pool")}


def test_the_drawing_shows_the_rooms() -> None:
    assert (ROOT / "docs" / "rooms.svg").read_text() == drawing(), "run python docs/rooms.py"


def test_tests_are_in_rooms_of_the_same_names_and_real_workers_apart() -> None:
    """What starts real workers is in `cluster`, or in what `make chaos`, `soak`, `packages` and `celery-suite` run."""
    tests = {path.relative_to(ROOT / "tests"): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    rooms = {path.parts[0] for path in tests if len(path.parts) == 2 and path.name.startswith("test_")}
    with_workers = {path.parts[0] for path, text in tests.items() if "import Cluster\n" in text}

    assert rooms == {room for room in ROOMS if (ROOT / PACKAGE / room).is_dir()} | {"cluster", "examples", "packages"}
    assert with_workers == {"cluster", "packages", "soak"}
