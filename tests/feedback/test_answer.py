"""What an exception says of a pause that an API asks for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.message import Message
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from types import SimpleNamespace as Response
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_global_rate.feedback.answer import Answer, pause_asked_for
from celery_global_rate.feedback.rate_limited import RateLimited

NOW = 784_111_777.0  # 06 Nov 1994 08:49:37 GMT
LONGEST_S = 3600.0
TWO_S = Answer(429, 2_000_000)


class RefusedError(Exception):
    """What a client raises: anything may be in it."""

    def __init__(self, **content: Any) -> None:
        super().__init__()
        vars(self).update(content)


def said(error: BaseException, longest_s: float = LONGEST_S) -> Answer | None:
    return pause_asked_for(error, NOW, longest_s)


def said_by(retry_after: Any, status: Any = 429, **headers: Any) -> Answer | None:
    return said(RefusedError(status=status, headers={"Retry-After": retry_after, **headers}))


class Code(Enum):
    """Such an enum has the client of an API, or gRPC."""

    TOO_MANY = 429
    EXHAUSTED = (8, "resource exhausted")


@pytest.mark.parametrize("status", [429, HTTPStatus.TOO_MANY_REQUESTS, "429", "429 Too Many Requests", Code.TOO_MANY])
@pytest.mark.parametrize("where", ["status", "status_code", "code", "http_status"])
def test_the_status_is_an_attribute_of_the_exception(where: str, status: Any) -> None:
    assert said(RefusedError(**{where: status}, headers={"Retry-After": "2"})) == TWO_S


@pytest.mark.parametrize("where", ["status", "status_code"])
def test_the_status_is_an_attribute_of_the_response(where: str) -> None:
    response = Response(**{where: 429}, headers={"retry-after": "2"})

    assert said(RefusedError(response=response)) == TWO_S
    assert said(RefusedError(response=response, code="slow_down", status="error")) == TWO_S


def test_a_response_that_is_false_is_a_response() -> None:
    class Falsy(Response):
        def __bool__(self) -> bool:
            return False

    assert said(RefusedError(response=Falsy(status_code=429, headers={"Retry-After": "2"}))) == TWO_S


def test_a_response_of_botocore() -> None:
    metadata = {"HTTPStatusCode": 429, "HTTPHeaders": {"retry-after": "2"}}

    assert said(RefusedError(response={"Error": {"Code": "Slow"}, "ResponseMetadata": metadata})) == TWO_S
    assert said(RefusedError(response={"ResponseMetadata": None})) is None
    assert said(RefusedError(response={})) is None


@pytest.mark.parametrize("status", [500, 200, 404, 4290, "4290", 42.9, 429.0, True, None, lambda: 429, Code.EXHAUSTED])
def test_another_status_asks_for_nothing(status: Any) -> None:
    assert said_by("2", status) is None


def test_the_first_place_with_a_status_counts() -> None:
    """And those behind it are not read: aiohttp warns that its `code` is old."""

    class OldError(RefusedError):
        @property
        def code(self) -> int:
            raise AssertionError

    assert said(OldError(status=500)) is None
    assert said(RefusedError(status=500, code=429, headers={"Retry-After": "2"})) is None
    assert said(RefusedError(status=0, status_code=8, code=429, headers={"Retry-After": "2"})) == TWO_S


def message() -> Message:
    headers = Message()
    headers["Retry-After"] = "2"
    return headers


@pytest.mark.parametrize(
    "headers",
    [
        {"RETRY-AFTER": "2"},
        {b"retry-after": b"2"},
        {"Retry-After": ["2", "9"]},
        {"Retry-After": 2},
        {"Retry-After": 2.0},
        {1: 2, None: "x", "Retry-After": " 2 "},
        [("Content-Length", "0"), ("Retry-After", "2"), ("Retry-After", "9")],
        [(b"retry-after", b"2")],
        message(),
    ],
    ids=lambda headers: str(headers).strip(),
)
def test_headers_in_many_shapes(headers: Any) -> None:
    assert said(RefusedError(status=429, headers=headers)) == TWO_S
    assert said(RefusedError(response=Response(status=429, headers=headers))) == TWO_S
    assert said(RefusedError(response=Response(status=429, headers={}), headers=headers)) == TWO_S


@pytest.mark.parametrize(
    ("retry_after", "length_us"),
    [
        ("1", 1_000_000),
        ("0.5", 500_000),
        (".5", 500_000),
        ("5.", 5_000_000),
        ("0.0000001", 1),
        ("3600", 3_600_000_000),
        ("3601", 3_600_000_000),
        ("9" * 60, 3_600_000_000),
        ("Sun, 06 Nov 1994 08:49:39 GMT", 2_000_000),
        ("Sunday, 06-Nov-94 08:49:39 GMT", 2_000_000),
        ("Sun Nov  6 08:49:39 1994", 2_000_000),
        ("Sun, 06 Nov 1994 09:49:39 +0100", 2_000_000),
        ("Sun, 06 Nov 1994 08:49:39 -0000", 2_000_000),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3_600_000_000),
    ],
)
def test_a_length_in_seconds_and_as_a_date(retry_after: str, length_us: int) -> None:
    assert said_by(retry_after) == Answer(429, length_us)
    assert said_by(retry_after, 503) == Answer(503, length_us)


def test_a_date_without_a_zone_is_one_of_gmt(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        answers = {said_by(date) for date in ("Sun Nov  6 08:49:39 1994", "Sun, 06 Nov 1994 08:49:39 -0000")}
    time.tzset()

    assert answers == {TWO_S}


def test_a_date_counts_from_the_date_of_the_answer() -> None:
    """Whatever this machine's clock says."""
    then = NOW + 86400

    assert said_by(formatdate(then + 2, usegmt=True), Date=formatdate(then, usegmt=True)) == TWO_S
    assert said_by(formatdate(NOW + 2, usegmt=True), Date="today") == TWO_S
    assert said_by("2", Date=formatdate(then, usegmt=True)) == TWO_S


def test_milliseconds_are_read_before_seconds() -> None:
    """They say the same, not rounded up to a second."""
    assert said_by("2", **{"retry-after-ms": "1250"}) == Answer(429, 1_250_000)
    assert said_by("2", **{"x-ms-retry-after-ms": "1250.5"}) == Answer(429, 1_250_500)
    assert said_by("2", **{"retry-after-ms": "soon"}) == TWO_S
    assert said_by("later", **{"retry-after-ms": "soon"}) == Answer(429, None, "'soon'")


RUBBISH = [
    *("0", "0.0", "-1", "soon", "", "1e3", "nan", "inf", "0x10", "2 s", "1,5", "٢", "2\n3", "2026-11-27T10:00:00Z"),
    *("Sun, 06 Nov 1994 08:49:37 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "Sun, 99 Nov 2026 99:99:99 GMT"),
]


@pytest.mark.parametrize("retry_after", RUBBISH)
def test_rubbish_is_quoted_and_no_length(retry_after: str) -> None:
    assert said_by(retry_after) == Answer(429, None, ascii(retry_after))
    assert said_by(retry_after, 503) == Answer(503, None, ascii(retry_after))


@pytest.mark.parametrize(
    ("retry_after", "unread"),
    [
        ("x" * 10_000_000, "'" + "x" * 76 + "..."),
        ("9" * 10_000_000, "'" + "9" * 76 + "..."),
        (" " * 10_000_000 + "2", "'" + " " * 76 + "..."),
        (b"\n" * 100, "'" + "\\n" * 38 + "..."),
        (None, "'<NoneType>'"),
        (True, "'<bool>'"),
        ([], "'<list>'"),
        (float("nan"), "'nan'"),
        (-2, "'-2'"),
    ],
)
def test_what_is_quoted_is_short(retry_after: Any, unread: str) -> None:
    assert len(unread) <= 80
    assert said_by(retry_after) == Answer(429, None, unread)


def test_a_refusal_that_says_no_length() -> None:
    """A 429 is one all the same; a 503 without a length is a server that is ill."""
    assert said(RefusedError(status=429)) == Answer(429)
    assert said(RefusedError(status=429, headers={"Content-Length": "0"})) == Answer(429)
    assert said(RefusedError(status=503)) is None
    assert said(RefusedError(status=503, headers={"Content-Length": "0"})) is None


def test_our_own_exception() -> None:
    assert said(RateLimited(retry_after=2)) == TWO_S
    assert said(RateLimited(retry_after=10**300)) == Answer(429, 3_600_000_000)


def raised(error: BaseException, context: BaseException | None = None, **how: Any) -> BaseException:
    """An exception as it is after it was raised while another was handled, `cause=None` for `from None`."""
    error.__context__ = context
    if "cause" in how:
        error.__cause__ = how["cause"]
    return error


def test_it_is_a_cause_or_a_context() -> None:
    refused = RefusedError(status=429, headers={"Retry-After": "2"})

    assert said(raised(ValueError(), refused)) == TWO_S
    assert said(raised(ValueError(), refused, cause=None)) == TWO_S
    assert said(raised(ValueError(), cause=refused)) == TWO_S
    assert said(raised(ValueError(), KeyError(), cause=raised(OSError(), refused))) == TWO_S
    assert said(raised(ValueError(), KeyError())) is None


def test_a_cause_is_followed_rather_than_a_context() -> None:
    """What was handled before is in the context of the cause as well, unless it is older."""
    assert said(raised(ValueError(), RateLimited(5), cause=RateLimited(2))) == TWO_S
    assert said(raised(ValueError(), RateLimited(5), cause=KeyError())) is None


def test_the_nearest_with_a_length_counts() -> None:
    soon = RefusedError(status=503, headers={"Retry-After": "soon"})

    assert said(raised(RateLimited(2), RateLimited(5))) == TWO_S
    assert said(raised(RefusedError(status=429), RateLimited(2))) == TWO_S
    assert said(raised(soon, RefusedError(status=429))) == Answer(503, None, "'soon'")


def test_ten_are_looked_at() -> None:
    def chain(length: int) -> BaseException:
        error: BaseException = RateLimited(2)
        for _ in range(length - 1):
            error = raised(ValueError(), error)
        return error

    assert said(chain(10)) == TWO_S
    assert said(chain(11)) is None
    assert said(chain(100_000)) is None


def test_members_of_a_group_count() -> None:
    """Of asyncio.TaskGroup, for one; anything that looks like a group is one."""
    inner = RefusedError(exceptions=(KeyError(), raised(OSError(), RateLimited(2))))

    assert said(RefusedError(exceptions=(ValueError(), inner))) == TWO_S
    assert said(RefusedError(exceptions=(*[ValueError()] * 10, 3, "x"))) is None


def test_many_members_take_no_time() -> None:
    error = RefusedError()
    for _ in range(10):
        error = RefusedError(exceptions=tuple(RefusedError(exceptions=(error, error)) for _ in range(1000)))

    assert took_s(error) < 0.1


def test_circles_end() -> None:
    first, second = ValueError(), KeyError()
    first.__context__, second.__context__ = second, first
    group = RefusedError()
    vars(group).update(exceptions=(group, first), __cause__=group)

    assert said(first) is None
    assert said(group) is None


def took_s(error: BaseException) -> float:
    begin = time.perf_counter()
    said(error)
    return time.perf_counter() - begin


class Raises:
    """Whatever one asks it, it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Endless:
    """Has every attribute, and each is another one of these."""

    def __getattr__(self, name: str) -> Any:
        return Endless()

    def __call__(self, *args: Any, **options: Any) -> Any:
        raise AssertionError("called")

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield "Date", self

    def __int__(self) -> int:
        return 429


class RaisesError(Exception):
    """Has no attribute that can be read."""

    def __getattribute__(self, name: str) -> Any:
        raise RecursionError(name)


class EndlessError(Exception):
    """Its causes have no end either."""

    def __getattribute__(self, name: str) -> Any:
        return EndlessError()


class NoItems(dict):  # type: ignore[type-arg]
    """Headers that cannot be listed."""

    def items(self) -> Any:
        raise KeyError


#: Named, since pytest would ask each for a name.
HOSTILE = {
    "raises": Raises(),
    "endless": Endless(),
    "mock": Mock(),
    "magic mock": MagicMock(),
    "no items": NoItems(),
    "object": object(),
    "class": Raises,
    "type": type,
    "numbers": iter([1]),
    "no pairs": iter([("a",)]),
    "huge number": 10**5000,
}
PLACES = ["status", "status_code", "code", "http_status", "headers", "response", "exceptions", "args", "with_traceback"]


BAD_ERRORS: dict[str, BaseException] = {
    "raises": RaisesError(),
    "endless": EndlessError(),
    **{f"holds {name}": RefusedError(**dict.fromkeys(PLACES, it)) for name, it in HOSTILE.items()},
}


@pytest.mark.parametrize("name", BAD_ERRORS)
def test_what_is_hostile_says_nothing(name: str) -> None:
    assert took_s(BAD_ERRORS[name]) < 0.1
    assert said(BAD_ERRORS[name]) is None


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_hides_nothing_else(name: str) -> None:
    """A response that cannot be read, and behind it headers that can."""
    hostile = HOSTILE[name]
    error = RefusedError(response=hostile, status=429, headers={"Retry-After": "2"})

    assert said(error) == TWO_S
    assert said(RefusedError(status=429, headers=hostile)) == Answer(429)
    assert said(raised(RefusedError(response=hostile, status=hostile), RateLimited(2))) == TWO_S


@pytest.mark.parametrize("name", ["raises", "endless"])
def test_it_is_not_hidden_by_a_hostile_member(name: str) -> None:
    assert said(RefusedError(exceptions=(BAD_ERRORS[name], RateLimited(2)))) == TWO_S


def test_a_million_headers_take_no_time() -> None:
    headers = {**{f"X-{number}": "x" for number in range(1_000_000)}, "Retry-After": "2"}

    assert took_s(RefusedError(status=429, headers=headers)) < 0.1
    assert took_s(RefusedError(status=429, headers=[("x" * 100_000_000, "x" * 100_000_000)])) < 0.1


#: It asks what it generates for its class, which raises; and prints it, which is too much for Python.
UNKNOWN_TO_HYPOTHESIS = {"raises", "huge number"}
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([429, 503, "429"])
    | st.sampled_from(sorted(HOSTILE.keys() - UNKNOWN_TO_HYPOTHESIS)).map(lambda name: HOSTILE[name])
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.sampled_from(["Retry-After", "Date", "ResponseMetadata", "HTTPStatusCode", "HTTPHeaders"]), inner
        )
        | st.builds(lambda content: Response(**content), st.dictionaries(st.sampled_from(PLACES), inner))
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(PLACES), JUNK), JUNK)
def test_rubbish_says_nothing_or_a_sound_answer(content: dict[str, Any], inner: Any) -> None:
    answer = said(raised(RefusedError(**content), RefusedError(status=429, headers=inner)))

    assert answer is None or answer.status in (429, 503)
    assert answer is None or answer.length_us is None or 0 < answer.length_us <= LONGEST_S * 1_000_000
    assert answer is None or answer.unread is None or len(answer.unread) <= 80


@given(st.text() | st.from_regex(r"\A[A-Z][a-z]+,? [0-9]+[- ][A-Z][a-z]{2}[- ][0-9]+ [0-9:]+ [A-Z+0-9-]*\Z"))
def test_any_text_is_a_length_or_quoted(text: str) -> None:
    answer = said_by(text)

    assert answer is not None
    assert (answer.length_us is None) == (answer.unread is not None)


@given(st.floats(min_value=1e-6, max_value=1e300), st.floats(min_value=1e-6, max_value=1e9))
def test_any_length_is_cut_to_the_longest(seconds: float, longest_s: float) -> None:
    answer = said(RateLimited(seconds), longest_s)

    assert answer is not None
    assert answer.length_us is not None
    assert answer.length_us >= 1
    assert abs(answer.length_us - min(seconds, longest_s) * 1_000_000) <= 1
