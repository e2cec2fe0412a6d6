"""A fault that is put back, so that it stays shown that the tests find it.

Celery measures only what succeeds. The run time of None that a failure ends with went into the list of run times, and
with it every look at the pool's pace ended in a TypeError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery_global_rate.broker.held_request import HeldRequest
from celery_global_rate.scheduling.capacity import Capacity
from celery_global_rate.worker.pool import CeleryPool

_start, _slots = CeleryPool.start, Capacity.slots
_failed: list[str] = []


def start(self: CeleryPool, held: HeldRequest, failed: Callable[[Exception], None]) -> None:
    request = held.request
    on_failure = request.on_failure

    def noted(*args: Any, **kwargs: Any) -> Any:
        _failed.append(request.id)
        return on_failure(*args, **kwargs)

    request.on_failure = noted
    _start(self, held, failed)


def slots(self: Capacity, *args: Any, **kwargs: Any) -> int:
    if _failed:
        raise TypeError("'>' not supported between instances of 'NoneType' and 'float'")
    return _slots(self, *args, **kwargs)


CeleryPool.start, Capacity.slots = start, slots  # type: ignore[method-assign]
