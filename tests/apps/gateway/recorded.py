"""The gateway of `examples/gateway`, which also records when it is given a slot, and how late its event loop is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway import gateway, limiter

#: How often the event loop is asked to be in time.
TICK_S = 0.005

acquire = limiter.acquire
lifespan = gateway.router.lifespan_context
file = open("grants", "ab", buffering=0)  # noqa: SIM115


def note(what: str, *seconds: float) -> None:
    file.write(f"{what} {' '.join(f'{it:.6f}' for it in seconds)}\n".encode())


async def recorded(*args: Any, **options: Any) -> None:
    await acquire(*args, **options)
    note("granted", time.monotonic())


async def watch() -> None:
    """Note how late each tick is, beside the instant."""
    while True:
        due = time.monotonic() + TICK_S
        await asyncio.sleep(TICK_S)
        now = time.monotonic()
        note("tick", now, now - due)


@asynccontextmanager
async def watched(app: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(watch())
    async with lifespan(app):
        yield
    task.cancel()


limiter.acquire = recorded
gateway.router.lifespan_context = watched
