"""Our own exception for an API that asks for a pause."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.utils.serialization import get_pickleable_exception

from celery_global_rate import RateLimited


@pytest.mark.parametrize("retry_after", [2, 0.25, timedelta(minutes=1, microseconds=1), 10**9])
def test_it_comes_out_of_a_pickle_as_it_went_in(retry_after: Any) -> None:
    error = RateLimited(retry_after, "the CRM has had enough")
    copy = pickle.loads(pickle.dumps(error))

    seconds = retry_after.total_seconds() if isinstance(retry_after, timedelta) else retry_after
    assert copy.retry_after == error.retry_after == seconds
    assert str(copy) == str(error) == f"the CRM has had enough: {seconds:g} s"
    assert get_pickleable_exception(error) is error


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_it_comes_out_of_a_result_backend(serializer: str) -> None:
    app = Celery("test", set_as_current=False, backend="cache+memory://", result_serializer=serializer)
    app.conf.accept_content = ["json", "pickle"]
    try:
        raise RateLimited(retry_after=timedelta(seconds=2.5))
    except RateLimited as error:
        app.backend.store_result(serializer, error, "FAILURE", traceback=ExceptionInfo().traceback)
    result = app.AsyncResult(serializer).result

    assert (type(result), result.retry_after) == (RateLimited, 2.5)
    assert str(result) == "the API asks for a pause: 2.5 s"


@pytest.mark.parametrize("retry_after", [0, -1, 0.0, float("nan"), float("inf"), timedelta(0), timedelta(-1)])
def test_a_length_of_time_is_more_than_nothing(retry_after: Any) -> None:
    with pytest.raises(ValueError, match=r"^RateLimited: retry_after is .*: use a number of seconds above 0$"):
        RateLimited(retry_after)


@pytest.mark.parametrize("retry_after", ["2", None, True, 2j, [2], b"2"])
def test_a_length_of_time_is_a_number(retry_after: Any) -> None:
    with pytest.raises(TypeError, match=r"^RateLimited: retry_after is .*: use seconds, such as 2.5, or a timedelta$"):
        RateLimited(retry_after)


def test_it_says_for_how_long() -> None:
    with pytest.raises(TypeError, match="retry_after"):
        RateLimited()  # type: ignore[call-arg]
