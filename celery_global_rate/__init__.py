"""Rate limits of Celery tasks that hold for the whole cluster."""

from . import activation  # noqa: F401  (checks a worker that has the step before it is built)
from .version import __version__ as __version__
from .worker.step import GlobalRateLimit

__all__ = ["GlobalRateLimit"]
