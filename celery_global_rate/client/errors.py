"""What callers are told that got no slot."""

from __future__ import annotations


class AcquireTimeout(TimeoutError):  # noqa: N818  (it reads better where it is caught)
    """No slot in time. Nothing was spent.

    Attributes:
        retry_after: in so many seconds the next slot may come, if nobody else takes it; None if that is not known.
    """

    def __init__(self, name: str, timeout_s: float, retry_after: float | None = None) -> None:
        super().__init__(name, timeout_s, retry_after)
        self._name, self._timeout_s = name, timeout_s
        self.retry_after = retry_after

    def __str__(self) -> str:
        when = "" if self.retry_after is None else f"; the next may come in {self.retry_after:.3g} s"
        return f"no slot of {self._name} within {self._timeout_s:.3g} s{when}"
