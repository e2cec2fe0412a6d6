"""The longest pause that an API may ask for, as the configuration has it."""

from __future__ import annotations

from datetime import timedelta

from ..limits import duration

#: What `True` means.
DEFAULT_S = 3600.0


def read_longest_s(setting: str, value: object) -> float | None:
    """The longest pause, in seconds.

    Args:
        setting: what it is the value of.
        value: `True`, or the longest pause: seconds, a text such as `15m`, or a `timedelta`. `False` for no pause.

    Returns:
        The seconds; 0 for no pause, and None if nothing is said.

    Raises:
        ValueError: it is none of these; the text names the setting, the value and the remedy.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return DEFAULT_S if value else 0.0
    seconds = 0.0
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)):
        seconds = float(value)
    elif isinstance(value, str):
        try:
            seconds = duration.parse(value)
        except ValueError:
            seconds = 0.0
    if not 0 < seconds <= duration.LONGEST_S:
        raise ValueError(
            f"{setting} = {value!r:.80}: use True, False, or the longest pause, such as 60 (seconds) or '15m'"
        )
    return seconds
