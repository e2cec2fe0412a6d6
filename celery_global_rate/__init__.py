"""Rate limits of Celery tasks that hold for the whole cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .feedback.rate_limited import RateLimited
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .worker.step import GlobalRateLimit

__all__ = ["GlobalRateLimit", "RateLimited"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no Celery for what does not need it."""
    if name == "GlobalRateLimit":
        from . import activation  # noqa: F401  (checks a worker that has the step before it is built)
        from .worker.step import GlobalRateLimit

        return GlobalRateLimit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
