"""The result backend, asked once at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any


@contextmanager
def asked_once(backend: Any) -> Iterator[None]:
    """Have a result backend raise what it would try again, for the thread that is in here.

    With `result_backend_always_retry`, and for a database without it, Celery tries again at once, logs a traceback each
    time, and sleeps between: in the event loop, where nothing else goes on meanwhile.

    Args:
        backend: Celery's, which other threads may use as well.
    """
    caller, theirs = get_ident(), backend.exception_safe_to_retry
    store = getattr(backend, "_store_result", None)
    # Before Celery 5.7 the database backend retries by itself, through a decorator.
    bare = getattr(store, "__wrapped__", None) if _is_of_a_database(store) else None
    backend.exception_safe_to_retry = lambda exc: get_ident() != caller and theirs(exc)
    if bare is not None:
        backend._store_result = _for(caller, bare.__get__(backend), store)
    try:
        yield
    finally:
        del backend.exception_safe_to_retry
        if bare is not None:
            del backend._store_result


def _is_of_a_database(store: Any) -> bool:
    return getattr(store, "__module__", None) == "celery.backends.database"


def _for(caller: int, here: Callable[..., Any], elsewhere: Any) -> Callable[..., Any]:
    def store(*args: Any, **kwargs: Any) -> Any:
        return (here if get_ident() == caller else elsewhere)(*args, **kwargs)

    return store
