"""What callers are told that got no slot."""

from __future__ import annotations

from typing import Any


class AcquireTimeout(TimeoutError):  # noqa: N818  (it reads better where it is caught)
    """No slot in time. Nothing was spent.

    Attributes:
        retry_after: in so many seconds the next slot may come, if nobody else takes it; None if that is not known.
    """

    def __init__(self, name: str, timeout_s: float, retry_after: float | None = None) -> None:
        when = "" if retry_after is None else f"; the next may come in {retry_after:.3g} s"
        super().__init__(f"no slot of {name} within {timeout_s:.3g} s{when}")
        self.retry_after = retry_after
        self._made_of = name, timeout_s, retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of
