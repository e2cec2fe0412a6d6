"""Rate limits of Celery tasks that hold for the whole cluster."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .feedback.rate_limited import RateLimited
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .client.aio import AsyncRateLimiter
    from .client.blocking import RateLimiter
    from .client.errors import AcquireTimeout
    from .worker.step import GlobalRateLimit

__all__ = ["AcquireTimeout", "AsyncRateLimiter", "GlobalRateLimit", "RateLimited", "RateLimiter"]

#: Where each name is. Importing the last one also checks a worker that has the step before it is built.
MODULES = {
    "AcquireTimeout": "client.errors",
    "AsyncRateLimiter": "client.aio",
    "RateLimiter": "client.blocking",
    "GlobalRateLimit": "activation",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no Celery for what does not need it."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{MODULES[name]}", __name__), name)
