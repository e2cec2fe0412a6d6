"""Loaded by a worker: makes calls within the extension fail while a file says so.

The file holds the name of a call, or nothing, and a word: `once` for one error, `always` for one at each call.
"""

from __future__ import annotations

import functools
import importlib
import os
from pathlib import Path
from typing import Any

FILE = Path(os.environ["GLOBAL_RATE_PLANTED"])
#: Of those that know their bucket, only the calls for this one fail.
CONCERNED = "limited"

spent: set[str] = set()


class PlantedError(Exception):
    """The error."""


def fail(call: str, args: tuple[Any, ...]) -> None:
    """Raise, if this call is to fail now."""
    name, _, how = FILE.read_text().partition(" ")
    if name != call or name in spent:
        return
    if args:
        concerned = getattr(args[0], "name", args[0])
        if isinstance(concerned, str) and concerned != CONCERNED:
            return
    if how == "once":
        spent.add(name)
    raise PlantedError(call)


def plant(call: str) -> None:
    """Wrap a method or property, named as room.module.Class.method."""
    module, kind, method = call.rsplit(".", 2)
    owner = getattr(importlib.import_module(f"celery_global_rate.{module}"), kind)
    original = vars(owner)[method]
    getter: Any = original.fget if isinstance(original, property) else original

    @functools.wraps(getter)
    def planted(self: Any, *args: Any, **kwargs: Any) -> Any:
        fail(call, args)
        return getter(self, *args, **kwargs)

    setattr(owner, method, property(planted) if isinstance(original, property) else planted)


for each in os.environ["GLOBAL_RATE_CALLS"].split():
    plant(each)
