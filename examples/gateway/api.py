"""Stands for the API: it takes 55 requests in any second, and prints how many came, and from whom.

uvicorn api:api --port 8000 --log-level warning
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

MOST = 55
WATCH_S = 5
taken: deque[float] = deque(maxlen=MOST)
seen: Counter[str] = Counter()


async def answer(request: Request) -> Response:
    """What was asked, or 429 if there was too much."""
    now = time.monotonic()
    if len(taken) == MOST and now < taken[0] + 1:
        seen["refused"] += 1
        return PlainTextResponse("Too many requests\n", 429, {"Retry-After": "1"})
    taken.append(now)
    seen[request.path_params["collection"]] += 1
    return JSONResponse(request.path_params)


async def watch() -> None:
    """Print a line every few seconds."""
    while True:
        seen.clear()
        await asyncio.sleep(WATCH_S)
        if seen:
            print(", ".join(f"{name} {count / WATCH_S:.1f}/s" for name, count in sorted(seen.items())), flush=True)


@contextlib.asynccontextmanager
async def lifespan(api: Starlette) -> AsyncIterator[None]:
    """Watch while it runs."""
    task = asyncio.create_task(watch())
    yield
    task.cancel()


api = Starlette(routes=[Route("/{collection}/{number:int}", answer)], lifespan=lifespan)
