"""What is logged of a Redis that cannot be reached: enough to distinguish the mistakes, and no password."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from celery_global_rate.settings import Settings
from celery_global_rate.storage.cause import cause
from testbed.server import free_port

from ..conftest import Server

SECRET = "s3cret"


def why(url: str) -> str:
    """Why a connection does not open."""
    with pytest.raises(Exception) as raised:  # noqa: PT011  (any: that is what is tested)
        Settings(url, {}, "test", 100).connection().connect()
    return cause(raised.value)


def test_a_wrong_name_a_wrong_port_and_a_port_without_tls_differ(redis_server: Server) -> None:
    place = redis_server.url.rpartition("@")[2].rpartition("/")[2]
    said = {
        "name": why(f"redis://:{SECRET}@nosuch.invalid:6379/1"),
        "port": why(f"redis://:{SECRET}@127.0.0.1:{free_port()}/1"),
        "TLS": why(f"rediss://:{SECRET}@{place}/1"),
        "socket": why(f"unix://:{SECRET}@/nosuch.sock"),
    }

    assert said == {
        "name": said["name"],
        "port": "ConnectionError: Connection refused",
        "TLS": "TimeoutError: no answer to the TLS handshake",
        "socket": "ConnectionError: No such file or directory",
    }
    assert said["name"].startswith("ConnectionError: ")
    assert "name" in said["name"].lower()  # the system's words
    assert SECRET not in str(said)


def test_what_redis_says_is_told_without_what_it_quotes() -> None:
    """A server that knows no AUTH quotes the password."""
    said = cause(ResponseError(f"unknown command 'AUTH', with args beginning with: '{SECRET}' "))

    assert said == "unknown command 'AUTH'"


def test_of_any_other_error_there_is_only_its_class() -> None:
    assert cause(RuntimeError(f"redis://:{SECRET}@h")) == "RuntimeError"
