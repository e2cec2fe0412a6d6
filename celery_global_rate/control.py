"""What changes about Celery's remote control commands."""

from __future__ import annotations

from typing import Any

from celery.worker.control import Panel, nok

from .limit import Limit


def refuse_bad_rates() -> None:
    """Let `control rate_limit` refuse what cannot be meant; all else about the command stays Celery's own."""
    celery_rate_limit = Panel.data["rate_limit"]
    if hasattr(celery_rate_limit, "refuses_bad_rates"):
        return

    def rate_limit(state: Any, task_name: str, rate_limit: Any, **kwargs: Any) -> Any:
        burst = getattr(state.app.tasks.get(task_name), "rate_burst", None)
        try:
            Limit.parse(rate_limit, burst)
        except ValueError as exc:
            return nok(str(exc))
        return celery_rate_limit(state, task_name, rate_limit, **kwargs)

    rate_limit.__doc__ = celery_rate_limit.__doc__
    rate_limit.refuses_bad_rates = True  # type: ignore[attr-defined]
    Panel.data["rate_limit"] = rate_limit
