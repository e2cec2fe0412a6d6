"""Rate limits of Celery tasks that hold for the whole cluster."""

from .step import GlobalRateLimit
from .switch import on_worker_init as _on_worker_init  # importing it connects the signal

__all__ = ["GlobalRateLimit"]
__version__ = "0.1.0"
