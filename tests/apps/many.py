"""298 limited tasks beside the two of `benchmarks.app`, in a module that its workers include."""

from __future__ import annotations

from benchmarks.app import app


def nothing() -> None:
    """The body of all."""


for number in range(298):
    app.task(name=f"many.task{number:03}", rate_limit="100/m")(nothing)
