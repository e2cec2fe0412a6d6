"""Whether an API asks for a pause, and for how long: read from the exception that its client raises."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from itertools import islice
from typing import Any

from ..limits.duration import US_PER_S
from .rate_limited import RateLimited

TOO_MANY_REQUESTS, UNAVAILABLE = 429, 503
#: How far back causes are followed, how many exceptions are looked at in all, and how many headers of each.
DEEPEST, MOST_EXCEPTIONS, MOST_HEADERS = 10, 100, 1000
#: Characters of a header that are read; a date has 33 at the most. And those that are shown.
LONGEST_READ, LONGEST_SHOWN = 60, 80
#: Where clients keep the status of an answer, as attributes of the response and of the exception.
OF_RESPONSE = ("status_code", "status")
OF_ERROR = ("status_code", "status", "http_status", "code")
#: Headers with a length of time, and a unit of each in seconds. Azure's and OpenAI's own clients prefer the first two,
#: which repeat Retry-After without rounding it up to a second.
LENGTHS = (("retry-after-ms", 0.001), ("x-ms-retry-after-ms", 0.001), ("retry-after", 1.0))

# Name and value of each header.
Headers = Iterable[tuple[Any, Any]]


@dataclass(frozen=True)
class Answer:
    """An API answered that it has had enough.

    Attributes:
        status: 429, or 503.
        length_us: for how long it wants no request, above 0; None if it does not say, and nothing follows from it.
        unread: what it says in place of a length, quoted, 80 characters at the most; None if nothing.
    """

    status: int
    length_us: int | None = None
    unread: str | None = None


def pause_asked_for(error: BaseException, now: float, longest_s: float) -> Answer | None:
    """What an exception, or one behind it, says of a pause that an API asks for.

    Behind it is its cause, else its context, and so on; of an exception group, its members as well. A context counts
    where it is not to be shown (``raise ... from None``): the API was asked, whatever a traceback shows of it. The
    nearest answer with a length counts, else the nearest of all. A 503 without ``Retry-After`` is no answer: the
    server is ill, and nobody has asked for a pause.

    Nothing that an exception holds is called, except what its properties do and the ``items`` of its headers, and
    what these raise counts as absent.

    Args:
        error: the exception in flight.
        now: of this machine's clock, epoch seconds; for a date in an answer without a ``Date`` of its own.
        longest_s: a longer pause is cut to this many seconds.
    """
    nearest = None
    for exception in _with_causes(error):
        try:
            answer = _read(exception, now, longest_s)
        except Exception:  # an exception can hold anything, and a task must not fail by what we make of it
            continue
        if answer is not None and answer.length_us is not None:
            return answer
        nearest = nearest or answer
    return nearest


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those behind it, the nearest first, each once."""
    seen: dict[int, BaseException] = {}
    level: list[Any] = [error]
    for _ in range(DEEPEST):
        new = {id(it): it for it in level if isinstance(it, BaseException) and id(it) not in seen}
        yield from islice(new.values(), MOST_EXCEPTIONS - len(seen))
        seen.update(new)
        level = [behind for it in new.values() for behind in _behind(it)]
        if len(seen) >= MOST_EXCEPTIONS:
            return


def _behind(error: BaseException) -> list[Any]:
    """Its cause or context, and the members of a group."""
    members = _attribute(error, "exceptions")
    cause = _attribute(error, "__cause__")
    return [
        cause if cause is not None else _attribute(error, "__context__"),
        *(members[:MOST_EXCEPTIONS] if type(members) is tuple else ()),
    ]


def _read(error: BaseException, now: float, longest_s: float) -> Answer | None:
    """What one exception says."""
    if isinstance(error, RateLimited):
        return Answer(TOO_MANY_REQUESTS, _in_us(error.retry_after, longest_s))
    response = _attribute(error, "response")
    status = _status(error, response)
    if status not in (TOO_MANY_REQUESTS, UNAVAILABLE):
        return None
    unread = None
    for headers in (
        _attribute(response, "headers"),
        _metadata(response).get("HTTPHeaders"),
        _attribute(error, "headers"),
    ):
        said = _headers(headers)
        for name, unit_s in LENGTHS:
            if name in said:
                length_s = _length_s(said[name], unit_s, said.get("date"), now)
                if length_s is not None and length_s > 0:
                    return Answer(status, _in_us(length_s, longest_s))
                unread = unread or _quoted(said[name])
    return Answer(status, None, unread) if unread or status == TOO_MANY_REQUESTS else None


def _attribute(thing: Any, name: str) -> Any:
    """None if it has none, or if that raises."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None


def _status(error: BaseException, response: Any) -> int | None:
    """The first that is one of HTTP, of all the places where a client may keep it."""
    places = [(response, name) for name in OF_RESPONSE] + [(error, name) for name in OF_ERROR]
    told = _number(_metadata(response).get("HTTPStatusCode"))
    # One after the other: some old ones warn that they are old.
    numbers = (_number(_attribute(thing, name)) for thing, name in places)
    return told or next((number for number in numbers if number), None)


def _number(value: Any) -> int | None:
    """The status of HTTP that a value is: an integer, a text that begins with one, an enum with either."""
    if isinstance(value, Enum) and not isinstance(value, int):
        value = value.value
    if isinstance(value, str):
        found = re.match(r"\s*([0-9]{3})(?![0-9])", value[:LONGEST_READ])
        value = int(found[1]) if found else None
    return int(value) if isinstance(value, int) and 100 <= value <= 599 else None


def _metadata(response: Any) -> dict[str, Any]:
    """What botocore has in place of a response."""
    metadata = response.get("ResponseMetadata") if type(response) is dict else None
    return metadata if type(metadata) is dict else {}


def _headers(headers: Any) -> dict[str, str]:
    """Those that are read here, by their names in lower case; of several with one name the first."""
    wanted = {"date", *(name for name, _ in LENGTHS)}
    longest = max(map(len, wanted))
    found: dict[str, str] = {}
    try:
        items = getattr(headers, "items", None)
        pairs: Headers = items() if items is not None else headers
        for name, value in islice(pairs, MOST_HEADERS):
            key = _text(name)[: longest + 1].lower()
            if key in wanted:
                found.setdefault(key, _text(value))
    except Exception:  # no headers, or not such that can be read: those found so far count
        pass
    return found


def _text(value: Any) -> str:
    """The beginning of a text, of bytes, of a number, or of the first of several."""
    if isinstance(value, (list, tuple)) and value:
        value = value[0]
    if isinstance(value, bytes):
        return value[: LONGEST_SHOWN + 1].decode("latin-1")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(value)
    return value[: LONGEST_SHOWN + 1] if isinstance(value, str) else f"<{type(value).__name__}>"


def _length_s(text: str, unit_s: float, date: str | None, now: float) -> float | None:
    """The length that a header gives: a number of units, or from the date of the answer to another."""
    text = text.strip()
    if len(text) > LONGEST_READ:
        return None
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", text):
        return float(text) * unit_s
    until = _instant(text)
    if until is None:
        return None
    said = _instant(date) if date else None
    return until - (now if said is None else said)


def _instant(text: str) -> float | None:
    """Epoch seconds of a date of HTTP, in any of its three formats."""
    try:
        date: datetime = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError, IndexError):  # TypeError: up to Python 3.9
        return None


def _in_us(length_s: float, longest_s: float) -> int:
    """Rounded up."""
    return math.ceil(min(length_s, longest_s) * US_PER_S)


def _quoted(text: str) -> str:
    """For a line of the log."""
    quoted = ascii(text)
    return quoted if len(quoted) <= LONGEST_SHOWN else f"{quoted[: LONGEST_SHOWN - 3]}..."
