"""What a request says of the key of a named bucket: an argument of its task, or a header of its message."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ..limits import key_values
from ..named_buckets import HEADERS

NOT_GIVEN = inspect.Parameter.empty


def key_value(request: Any, key: str) -> str | None:
    """The value of a key, as a part of a Redis key.

    Args:
        request: Celery's.
        key: the name of an argument, or `headers.` and the name of a header.

    Returns:
        The value, quoted; None if there is none, or if it is a container: such requests share a bucket.
    """
    try:
        return key_values.key_value(said(request, key))
    except Exception:  # somebody's class has no text, or what a task runs is no function
        return None


def said(request: Any, name: str) -> Any:
    """The value of an argument, or of `headers.` and the name of a header; None if there is none."""
    return header(request, name[len(HEADERS) :]) if name.startswith(HEADERS) else _argument(request, name)


def has_argument(task: Any, name: str) -> bool:
    """Whether a task can be called with an argument of this name."""
    parameters = _parameters(task.run)
    return name in parameters or any(it.kind is it.VAR_KEYWORD for it in parameters.values())


def header(request: Any, name: str) -> Any:
    """The value of a header of its message; None if there is none."""
    found = request.request_dict.get(name)
    return request.message.headers.get(name) if found is None else found


def _argument(request: Any, name: str) -> Any:
    """By name if it was given so, else by its place, else its default."""
    args, kwargs = request.args, request.kwargs
    if isinstance(kwargs, Mapping) and name in kwargs:
        return kwargs[name]
    place, default = _place(request.task.run, name)
    if place is not None and isinstance(args, (list, tuple)) and place < len(args):
        return args[place]
    return None if default is NOT_GIVEN else default


@lru_cache(maxsize=4096)
def _place(run: Callable[..., Any], name: str) -> tuple[int | None, Any]:
    """At which place of the positional arguments a function takes this one, if it does, and its default."""
    for place, parameter in enumerate(_parameters(run).values()):
        if parameter.name == name:
            is_positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            return place if is_positional else None, parameter.default
    return None, NOT_GIVEN


def _parameters(run: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(run).parameters
    except (TypeError, ValueError):  # written in C, or something else that can be called
        return {}
