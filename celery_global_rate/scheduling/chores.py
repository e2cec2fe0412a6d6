"""A worker's periodic jobs, each isolated from the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .faults import Faults, Retry

#: Takes the monotonic instant of now, does what is due, and returns the instant of what is due next, both in seconds.
Chore = Callable[[float], float]


class Chores:
    """Does all of them; one that fails is retried after a pause, and the others go on.

    Args:
        chores: by what they do, as logs name it.
        faults: logs their errors.
    """

    def __init__(self, chores: Mapping[str, Chore], faults: Faults) -> None:
        self._chores = {name: (chore, Retry()) for name, chore in chores.items()}
        self._faults = faults

    def keep_up(self, now: float) -> float:
        """Do what is due.

        Args:
            now: monotonic seconds.

        Returns:
            The monotonic instant of what is due next.
        """
        return min(self._keep_up(name, *chore, now) for name, chore in self._chores.items())

    def _keep_up(self, name: str, chore: Chore, retry: Retry, now: float) -> float:
        if now < retry.at:
            return retry.at
        try:
            return chore(now)
        except self._faults.passing:
            raise
        except Exception as exc:
            self._faults.note(name, exc)
            retry.failed(now)
            return retry.at
