"""A Django project whose web processes and Celery workers share the budget of one API."""

from __future__ import annotations

from .celery import app

__all__ = ["app"]
