"""Limiting calls of threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from .base import BaseLimiter
from .waiter import ThreadWaiter

Function = TypeVar("Function", bound=Callable[..., Any])


class RateLimiter(BaseLimiter):
    """A bucket, for threads outside a worker.

    Args:
        url: the Redis that keeps the limits, as in `global_rate_url`.
        name: of the bucket.
        rate: as in an entry of `global_rate_buckets`: a rate, a dictionary with what belongs to it, or a list of such.
        prefix: of all keys, as in `global_rate_key_prefix`. That of workers is `global-rate:v1:` and the name of their
            application, if they have no such setting.
        redis_options: as in `global_rate_redis_options`.
        on_outage: as in `global_rate_on_outage`.

    Raises:
        ValueError: one of them cannot be meant; the text names it, its value and the remedy.
    """

    def try_acquire(self, key: object = None, cost: int = 1) -> bool:
        """Take a slot that lies ready, and do not wait for one.

        Args:
            key: the value of the bucket's key; None if it has none.
            cost: units of each of its limits.

        Returns:
            Whether there was one.
        """
        waiter = ThreadWaiter(*self._asked(key, cost, 0))
        self._here()[1].try_acquire(waiter)
        waiter.wait()
        return waiter.error is None

    def acquire(self, timeout: float | None = None, key: object = None, cost: int = 1) -> None:
        """Wait for a slot.

        Args:
            timeout: in seconds; None to wait as long as it takes.
            key: the value of the bucket's key; None if it has none.
            cost: units of each of its limits.

        Raises:
            AcquireTimeout: there is none in time. It comes at once if that is known by then, and nothing is spent.
        """
        waiter = ThreadWaiter(*self._asked(key, cost, timeout))
        engine = self._here()[1]
        if timeout is not None and timeout <= 0:
            engine.try_acquire(waiter)
        else:
            engine.acquire(waiter)
        try:
            waiter.wait()
        except BaseException:  # such as KeyboardInterrupt
            engine.cancel(waiter)
            raise
        if waiter.error is not None:
            raise waiter.error

    def __enter__(self) -> RateLimiter:
        self.acquire()
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def __call__(self, function: Function) -> Function:
        """A function that waits for a slot each time that it is called."""
        if iscoroutinefunction(function):
            raise TypeError(f"{function.__name__} is a coroutine function: use AsyncRateLimiter")

        @wraps(function)
        def limited(*args: Any, **kwargs: Any) -> Any:
            self.acquire()
            return function(*args, **kwargs)

        return cast(Function, limited)
