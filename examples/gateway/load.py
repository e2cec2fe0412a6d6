"""More work than the API takes: tasks for the workers, and callers at the gateway.

    python load.py

Callers ask for orders and tasks for customers, so that the API can tell them apart.
"""

from __future__ import annotations

import asyncio
import itertools
import os

import httpx
from proj import app, fetch

GATEWAY_URL = os.environ.get("GATEWAY_URL", "http://localhost:8001")
#: Callers at once, and tasks that wait.
CALLERS = int(os.environ.get("CALLERS", "40"))
BACKLOG = 200

numbers = itertools.count()


async def call(client: httpx.AsyncClient) -> None:
    """One caller: again and again, and after a refusal when the gateway says."""
    while True:
        answer = await client.get(f"/orders/{next(numbers)}")
        if answer.status_code == 429:
            await asyncio.sleep(float(answer.headers["Retry-After"]))


async def feed() -> None:
    """Keep tasks waiting."""
    with app.connection_for_write() as connection:
        queue = app.amqp.queues[app.conf.task_default_queue].bind(connection.default_channel)
        while True:
            _, waiting, _ = queue.queue_declare()
            for _ in range(BACKLOG - waiting):
                fetch.delay(next(numbers))
            await asyncio.sleep(0.2)


async def main() -> None:
    """Until it is stopped."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=GATEWAY_URL, timeout=30, limits=limits) as client:
        await asyncio.gather(feed(), *(call(client) for _ in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(main())
