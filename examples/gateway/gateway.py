"""A gateway in front of an API: every request takes a slot of the bucket that Celery's workers draw from.

    uvicorn gateway:gateway --port 8001

A request waits for its slot, and not longer than the gateway is patient: then it is answered 429, with `Retry-After`.
It has spent no slot then, and the API has not heard of it.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import AsyncIterator

import httpx
from proj import API_URL, app
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from celery_global_rate import AcquireTimeout, AsyncRateLimiter

#: How long a request waits for a slot, seconds.
PATIENCE_S = float(os.environ.get("PATIENCE_S", "1"))
#: Headers that are about one connection, and not about what comes over it.
OF_CONNECTION = {"connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}

limiter = AsyncRateLimiter.from_app(app, "crm-api")
upstream = httpx.AsyncClient(base_url=API_URL, timeout=30)


async def forward(request: Request) -> Response:
    """Pass a request on to the API, and its answer back."""
    try:
        await limiter.acquire(timeout=PATIENCE_S)
    except AcquireTimeout as error:
        headers = {"Retry-After": str(math.ceil(error.retry_after or PATIENCE_S))}
        return PlainTextResponse("Too many requests\n", 429, headers)
    answer = await upstream.send(
        upstream.build_request(
            request.method,
            httpx.URL(path=request.url.path, query=request.url.query.encode()),
            headers=[(name, value) for name, value in request.headers.items() if name not in OF_CONNECTION],
            content=await request.body(),
        ),
        stream=True,
    )
    if answer.status_code == 429:
        with contextlib.suppress(KeyError, ValueError):
            limiter.back_off(float(answer.headers["Retry-After"]))  # workers and this gateway pause together
    headers = {name: value for name, value in answer.headers.items() if name not in OF_CONNECTION}
    return StreamingResponse(answer.aiter_raw(), answer.status_code, headers, background=BackgroundTask(answer.aclose))


@contextlib.asynccontextmanager
async def lifespan(gateway: Starlette) -> AsyncIterator[None]:
    """Close connections at the end."""
    async with upstream:
        yield


METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
gateway = Starlette(routes=[Route("/{path:path}", forward, methods=METHODS)], lifespan=lifespan)
