"""What an API has answered to a task: read where the task ran, and reported to Redis.

The worker notes at each request which buckets it would back off. A process of the pool inherits this object, finds the
note at a task that has failed or retries, and tells Redis itself: no answer of an API goes through the worker.
`tests/test_seams.py` has one test for each attribute of Celery's that is used here.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from celery import signals

from ..feedback.answer import Answer, pause_asked_for
from ..limits.bucket import Bucket
from ..limits.duration import LONGEST_S
from ..named_buckets import NamedBucket
from ..settings import Settings
from ..storage.back_offs import note
from ..storage.blocking_store import BlockingStore
from ..storage.cause import cause

logger = logging.getLogger(__name__)

#: The entry of the request's `delivery_info` with the note. It goes to the pool, and into no message.
NOTE = "global_rate"
#: How long a process waits for Redis at each step, in seconds: its next task waits as well.
TIMEOUT_S = 0.5


class Reports:
    """Notes what requests would back off, and reports it when an API has asked for a pause.

    Args:
        settings: where Redis is, and the longest pause for all.
        named: the named buckets of the application.
    """

    def __init__(self, settings: Settings, named: Mapping[str, NamedBucket]) -> None:
        self._settings = settings
        self._named = named
        self._is_used = settings.backoff_s > 0 or any(bucket.backoff_s for bucket in named.values())

    def begin(self) -> None:
        """Listen to what becomes of tasks. Called before the pool has processes."""
        if self._is_used:
            signals.task_failure.connect(self._failed, weak=False)
            signals.task_retry.connect(self._retried, weak=False)

    def end(self) -> None:
        """Listen no more."""
        signals.task_failure.disconnect(self._failed)
        signals.task_retry.disconnect(self._retried)

    def mark(self, request: Any, buckets: Iterable[Bucket]) -> None:
        """Note at a request which of the buckets that it passes it would back off: if some have a key, only these.

        The note has a name, the value of its key, and the windows of its limits.
        """
        if not self._is_used:
            return
        meant: dict[tuple[str, str | None], list[str]] = {}
        for bucket in buckets:
            if self._longest_s(bucket.name):
                meant.setdefault((bucket.name, bucket.key_value), []).append(bucket.window)
        has_keys = any(value is not None for _, value in meant)
        request.delivery_info[NOTE] = [
            [name, value, windows] for (name, value), windows in meant.items() if value is not None or not has_keys
        ]

    def _longest_s(self, name: str) -> float:
        """The longest pause that an API may ask for, in seconds; 0 if none may."""
        longest_s = self._named[name].backoff_s if name in self._named else None
        return self._settings.backoff_s if longest_s is None else longest_s

    def _failed(self, sender: Any, exception: BaseException | None = None, **kwargs: Any) -> None:
        # Celery may hand over a wrapper of what cannot be pickled; the one in flight is the task's own.
        self._look(sender, sys.exc_info()[1] or exception)

    def _retried(self, sender: Any, reason: Any = None, **kwargs: Any) -> None:
        self._look(sender, getattr(reason, "exc", None), sys.exc_info()[1] or reason)

    def _look(self, task: Any, *errors: Any) -> None:
        """Report what the first of some exceptions says that an API has answered to a task."""
        # Another process than that which ran the task, as one that was lost, has no request of it here.
        meant = (getattr(getattr(task, "request", None), "delivery_info", None) or {}).get(NOTE)
        if not meant:
            return
        answers = [
            answer
            for error in errors
            if isinstance(error, BaseException) and (answer := pause_asked_for(error, time.time(), LONGEST_S))
        ]
        if not answers:
            return
        answer = next((it for it in answers if it.length_us is not None), answers[0])
        if answer.length_us is None:
            logger.warning(
                "global-rate: task %s: HTTP %d with %s, which is no pause: %s does not back off",
                task.name,
                answer.status,
                f"Retry-After {answer.unread}" if answer.unread else "no Retry-After",
                ", ".join(name for name, *_ in meant),
            )
            return
        self._report(meant, answer, answer.length_us)

    def _report(self, meant: Iterable[tuple[str, str | None, list[str]]], answer: Answer, length_us: int) -> None:
        why = f"HTTP {answer.status}, Retry-After {length_us / 1e6:g} s"
        try:
            with BlockingStore(self._settings, TIMEOUT_S) as store:
                for name, value, windows in meant:
                    longest_us = max(1, int(self._longest_s(name) * 1e6))  # 0 would end a pause
                    store.back_off(name, windows, min(length_us, longest_us), note(name, value, why))
        except Exception as exc:  # a credential provider is somebody's code, and the task goes on as it would
            logger.warning(
                "global-rate: %s, from an API is not known in the Redis at %s: %s",
                why,
                self._settings.address,
                cause(exc),
            )
