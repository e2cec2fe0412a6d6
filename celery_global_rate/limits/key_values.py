"""The value of a key of a named bucket, as a part of a Redis key."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

#: A longer value is told apart by its SHA-1.
LONGEST_VALUE = 64


def key_value(found: object) -> str | None:
    """What was given as the value of a key.

    Returns:
        The value, quoted; None if there is none, or if it is a container: these share a bucket.

    Raises:
        Exception: somebody's class has no text.
    """
    if found is None or isinstance(found, (list, tuple, dict, set, frozenset)):
        return None
    return as_value(str(found))


def as_value(text: str) -> str:
    """The value of a key as a part of a Redis key: quoted, and if it is long its digest."""
    value = quote(text, safe="", errors="backslashreplace")
    return (
        value if len(value) <= LONGEST_VALUE else f"#{hashlib.sha1(text.encode(errors='backslashreplace')).hexdigest()}"
    )
