"""The Redis that Celery reaches is the one that keeps the limits: by the same words, on a real server."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from kombu import Connection

from celery_global_rate.redis_discovery import inherited
from celery_global_rate.settings import Settings
from testbed.server import Redis

from .apps.credentials import SECRET
from .conftest import KNOWS_PROVIDERS, locked_redis
from .read_back import read_by_us

PASSWORD = quote(SECRET, "")
PROVIDER, LATE = ("tests.apps.credentials.Provider", "tests.apps.credentials.LateProvider")


@pytest.fixture(scope="module")
def locked() -> Iterator[Redis]:
    with locked_redis(SECRET) as server:
        yield server


def application(locked: Redis, **conf: Any) -> Celery:
    app = Celery("proj", set_as_current=False)
    place = f"127.0.0.1:{locked.port}"
    app.conf.update({key: value.format(place) if isinstance(value, str) else value for key, value in conf.items()})
    return app


BROKERS = {
    "slash": {"broker_url": f"redis://:{PASSWORD}@{{}}//"},
    "capitals": {"broker_url": f"REDIS://:{PASSWORD}@{{}}/3"},
    "quoted": {"broker_url": f"redis://:{PASSWORD}@{{}}/%33"},
    "parameter": {"broker_url": f"redis://:{PASSWORD}@{{}}/3?heartbeat=10"},
    "second host": {"broker_url": f"redis://:{PASSWORD}@{{}}/3;other:1"},
    "second URL": {"broker_url": f"REDIS://:{PASSWORD}@{{}}/3;REDIS://other:1"},
    "@ in the password": {"broker_url": f"redis://:{SECRET.replace('/', '%2F')}@{{}}/3"},
    "settings": {"broker_url": "redis://{}", "broker_password": SECRET, "broker_vhost": "3"},
    "provider": {"broker_url": f"redis://user:wrong@{{}}/3?credential_provider={PROVIDER}"},
}
BACKENDS = {
    "slashes": {"result_backend": f"redis://:{PASSWORD}@{{}}/3/"},
    "quoted": {"result_backend": f"redis://:{PASSWORD}@{{}}//%33"},
    "query": {"result_backend": f"redis://:{PASSWORD}@{{}}/2?db=3"},
    "ignored": {"result_backend": f"redis://:{PASSWORD}@{{}}/3?virtual_host=2"},
    "decoding": {"result_backend": f"redis://:{PASSWORD}@{{}}/3?decode_responses=1"},
    "settings": {"result_backend": "redis://{}/3", "redis_password": SECRET},
    "provider": {"result_backend": f"redis://:wrong@{{}}/3?credential_provider={PROVIDER}"},
    "provider setting": {"result_backend": "redis://{}/3", "redis_backend_credential_provider": PROVIDER},
}


@pytest.mark.parametrize(
    "spelling", [pytest.param(it, marks=KNOWS_PROVIDERS) if it == "provider" else it for it in BROKERS]
)
def test_what_kombu_writes_is_read_where_the_limits_are(locked: Redis, spelling: str) -> None:
    app, key = application(locked, **BROKERS[spelling]), uuid.uuid4().hex
    with app.connection_for_read() as broker, contextlib.closing(broker.channel()) as channel:
        channel.client.set(key, b"\xff")

    assert read_by_us(app, key) == b"\xff"


@pytest.mark.parametrize(
    "spelling", [pytest.param(it, marks=KNOWS_PROVIDERS) if "provider" in it else it for it in BACKENDS]
)
def test_what_a_result_backend_writes_is_read_where_the_limits_are(locked: Redis, spelling: str) -> None:
    app, key = application(locked, broker_url="memory://", **BACKENDS[spelling]), uuid.uuid4().hex
    app.backend.client.set(key, b"\xff")

    assert read_by_us(app, key) == b"\xff"


def test_a_url_as_celery_prints_it_is_understood_by_the_setting_too(locked: Redis) -> None:
    """Without the mask of a password, which is there though there is none."""
    printed = Connection(f"redis://127.0.0.1:{locked.port}//").as_uri().replace(":**@", "")
    made = Settings.from_app(application(locked, global_rate_url=printed))

    assert printed == f"redis://127.0.0.1:{locked.port}//"
    assert (made.address, made.database) == (f"redis://127.0.0.1:{locked.port}", 0)


def test_a_provider_that_cannot_be_imported_is_named(locked: Redis) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        Settings.from_app(application(locked, broker_url="redis://{}/3?credential_provider=tests.apps.nosuch.Provider"))

    assert "broker_url: the credential provider tests.apps.nosuch.Provider cannot be imported" in str(refused.value)


def test_what_is_inherited_is_in_no_repr(locked: Redis) -> None:
    app = application(
        locked, broker_url=f"sentinel://:{PASSWORD}@{{}}", broker_transport_options={"sentinel_kwargs": {"p": SECRET}}
    )

    assert not {SECRET, PASSWORD} & set(repr(inherited(app.conf)).split("'"))
    assert "s3cret" not in repr(inherited(app.conf))
