"""The tasks of `tests.apps.answered`, by how the answer of their API goes on. Here, no application is imported."""

from __future__ import annotations

#: Those that back their bucket off.
KINDS = (
    *("fails", "retries", "retries_silently", "autoretries", "gives_up"),
    *("wraps", "wraps_silently", "cannot_be_pickled", "says"),
)
#: How the error of a client library goes on.
STYLES = ("fails", "retries", "autoretries", "wraps")
#: Those that do not: Celery tells nobody.
SILENT = ("swallows", "rejects")
