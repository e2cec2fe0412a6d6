"""Rate limits of Celery tasks that hold for the whole cluster."""

from . import switch  # noqa: F401  (checks a worker that has the step before it is built)
from .step import GlobalRateLimit
from .version import __version__ as __version__

__all__ = ["GlobalRateLimit"]
