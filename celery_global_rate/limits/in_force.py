"""What those that give out slots know of what counts for a name now."""

from __future__ import annotations

from typing import Protocol

from .limit import Limits


class LimitsInForce(Protocol):
    """Operators' overrides."""

    def in_force(self, name: str, declared: Limits) -> tuple[Limits, int]:
        """The limits of a name, and its floor on the Redis clock (epoch us)."""


class Pauses(Protocol):
    """The pauses that APIs have asked for."""

    def floor_us(self, name: str, value: str | None) -> int:
        """Before when a bucket has no slot (Redis clock, epoch us); 0 if it does not back off."""
