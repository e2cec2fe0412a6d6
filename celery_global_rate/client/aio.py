"""Limiting calls of tasks of asyncio, in any event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from .base import BaseLimiter
from .waiter import TaskWaiter

Function = TypeVar("Function", bound=Callable[..., Any])


class AsyncRateLimiter(BaseLimiter):
    """A bucket, for tasks of asyncio, in any event loop, outside a worker.

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

    async def try_acquire(self, key: object = None, cost: int = 1) -> bool:
        """Take a slot that lies ready, and do not wait for one.

        Args:
            key: the value of the bucket's key; None if it has none.
            cost: units of each of its limits.

        Returns:
            Whether there was one.
        """
        waiter = await self._wait(key, cost, 0)
        return waiter.error is None

    async def acquire(self, timeout: float | None = None, key: object = None, cost: int = 1) -> None:
        """Wait for a slot.

        Args:
            timeout: in seconds; None to wait as long as it takes.
            key: the value of the bucket's key; None if it has none.
            cost: units of each of its limits.

        Raises:
            AcquireTimeout: there is none in time. It comes at once if that is known by then, and nothing is spent.
        """
        waiter = await self._wait(key, cost, timeout)
        if waiter.error is not None:
            raise waiter.error

    async def _wait(self, key: object, cost: int, timeout: float | None) -> TaskWaiter:
        hub, engine = self._here()
        waiter = TaskWaiter(hub.wakes.add, asyncio.get_running_loop(), *self._asked(key, cost, timeout))
        if timeout is not None and timeout <= 0:
            engine.try_acquire(waiter)
        else:
            engine.acquire(waiter)
        try:
            await waiter.future
        except BaseException:  # such as CancelledError
            engine.cancel(waiter)
            raise
        return waiter

    async def __aenter__(self) -> AsyncRateLimiter:
        await self.acquire()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    def __call__(self, function: Function) -> Function:
        """A coroutine function that waits for a slot each time that it is called."""
        if not iscoroutinefunction(function):
            raise TypeError(f"{function!r:.80} is no coroutine function: use RateLimiter")

        @wraps(function)
        async def limited(*args: Any, **kwargs: Any) -> Any:
            await self.acquire()
            return await function(*args, **kwargs)

        return cast(Function, limited)
