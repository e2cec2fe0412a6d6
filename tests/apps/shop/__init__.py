"""A Django project as Celery's documentation has it, with settings of ours and not a line of code."""

from __future__ import annotations

from .celery import app

__all__ = ["app"]
