"""The result backend, asked once at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import get_ident
from typing import Any


@contextmanager
def asked_once(backend: Any) -> Iterator[None]:
    """Let a result backend raise what it would retry, for the calling thread.

    With `result_backend_always_retry`, and for a database without it, Celery tries again at once, logs a traceback each
    time, and sleeps in between: in the event loop, where nothing else runs meanwhile.

    Args:
        backend: Celery's, which other threads may use as well.
    """
    caller, theirs = get_ident(), backend.exception_safe_to_retry
    store = getattr(backend, "_store_result", None)
    is_database = getattr(store, "__module__", None) == "celery.backends.database"
    # Before Celery 5.7 the database backend retries by itself, through a decorator.
    bare = getattr(store, "__wrapped__", None) if is_database else None
    backend.exception_safe_to_retry = lambda exc: get_ident() != caller and theirs(exc)
    if bare is not None:
        backend._store_result = _for(caller, bare.__get__(backend), store)
    try:
        with _tables_prepared_once(caller) if is_database else nullcontext():
            yield
    finally:
        del backend.exception_safe_to_retry
        if bare is not None:
            del backend._store_result


@contextmanager
def _tables_prepared_once(caller: int) -> Iterator[None]:
    """Let Celery's first look for its tables raise if the database is away.

    Celery tries eleven times, and sleeps for two seconds in all. From Celery 5.5 on a worker looks at its start, if
    `database_create_tables_at_setup` is set; before, when it dismisses its first task.
    """
    from celery.backends.database.session import SessionManager

    theirs = SessionManager.prepare_models

    def prepare_models(manager: Any, engine: Any) -> None:
        if not manager.prepared:
            engine.connect().close()
        theirs(manager, engine)

    SessionManager.prepare_models = _for(caller, prepare_models, theirs)
    try:
        yield
    finally:
        SessionManager.prepare_models = theirs


def _for(caller: int, here: Callable[..., Any], elsewhere: Any) -> Callable[..., Any]:
    def either(*args: Any, **kwargs: Any) -> Any:
        return (here if get_ident() == caller else elsewhere)(*args, **kwargs)

    return either
