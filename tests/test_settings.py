"""What the operator says, and what is made of it. No server is needed: nothing connects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import ImproperlyConfigured

from celery_global_rate.settings import DEFAULT_MAX_HELD, KNOWN, Settings
from celery_global_rate.storage.location import CONNECT_TIMEOUT_S

BROKER = "redis://broker:6379/0"
SECRET = "s3cret"
NO_DICTIONARIES: list[object] = [None, [], "x", 5]


def application(name: str | None = "proj", **conf: Any) -> Celery:
    app = Celery(name, set_as_current=False)
    app.conf.update(conf)
    return app


def settings(**conf: Any) -> Settings:
    return Settings.from_app(application(**{"broker_url": BROKER, **conf}))


def refusal(**conf: Any) -> str:
    """The one line that says why settings were refused."""
    with pytest.raises(ImproperlyConfigured) as refused:
        settings(**conf)
    text = str(refused.value)
    assert "\n" not in text
    return text


def namespaced(namespace: str, **module: Any) -> Celery:
    """An application that reads a module of settings under a namespace, as Django projects do."""
    app = Celery("proj", set_as_current=False)
    app.config_from_object(SimpleNamespace(**module).__dict__, namespace=namespace)
    return app


def test_a_stranger_needs_no_setting() -> None:
    assert settings() == Settings(BROKER, {}, "global-rate:v1:proj", DEFAULT_MAX_HELD)


def test_an_application_without_a_name_has_a_prefix_too() -> None:
    assert Settings.from_app(application(None, broker_url=BROKER)).key_prefix == "global-rate:v1:celery"


def test_an_option_of_the_command_line_goes_before_the_setting() -> None:
    app = application(broker_url=BROKER, global_rate_url="redis://setting:1/1")

    assert Settings.from_app(app, "redis://option:1/1").url == "redis://option:1/1"
    assert Settings.from_app(app).url == "redis://setting:1/1"


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ({"broker_url": "redis://a:1/2"}, "redis://a:1/2"),
        ({"broker_url": ["redis://a:1/2", "redis://b:1/2"]}, "redis://a:1/2"),
        ({"broker_url": "redis://a:1/2;redis://b:1/2"}, "redis://a:1/2"),
        ({"broker_url": "amqp://", "broker_read_url": "redis://read:1/2"}, "redis://read:1/2"),
        ({"broker_url": "amqp://", "result_backend": "redis://results:1/2"}, "redis://results:1/2"),
        ({"broker_url": "redis://broker:1/2", "result_backend": "redis://results:1/2"}, "redis://broker:1/2"),
        ({"broker_read_url": "redis://read:1/2", "broker_write_url": "redis://write:1/2"}, "redis://read:1/2"),
        ({"broker_url": "amqp://", "broker_write_url": "redis://w:1", "result_backend": "redis://c:1"}, "redis://c:1"),
        ({"broker_url": "amqp://a;redis://b:1", "result_backend": "redis://c:1/2"}, "redis://c:1/2"),
        ({"broker_url": "redis://:a;b@h:1/2;redis://c:1"}, "redis://:a;b@h:1/2"),
        ({"broker_url": "redis://broker:1/2", "global_rate_url": "redis://own:1/2"}, "redis://own:1/2"),
    ],
)
def test_the_redis_is_the_one_named_else_the_broker_else_the_result_backend(
    conf: dict[str, Any], expected: str
) -> None:
    assert settings(**conf).url == expected


@pytest.mark.parametrize("broker", ["amqp://guest@rabbit//", "memory://", "sqs://", ["amqp://a"]])
def test_without_a_redis_the_setting_is_named(broker: Any) -> None:
    text = refusal(broker_url=broker)

    assert text.startswith("global_rate_url is not set")
    assert "redis://localhost:6379/0" in text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("rediss://h:1/2", "rediss://h:1/2"),
        ("valkey://h:1/2", "redis://h:1/2"),
        ("valkeys://h:1/2", "rediss://h:1/2"),
        ("redis://[::1]:1/2", "redis://[::1]:1/2"),
        ("redis+socket:///run/redis.sock?virtual_host=2", "unix:///run/redis.sock?db=2"),
        ("socket:///run/redis.sock", "unix:///run/redis.sock"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("rediss://h:1/2?ssl_cert_reqs=CERT_NONE", "rediss://h:1/2?ssl_cert_reqs=none"),
        ("rediss://h:1/2?ssl_cert_reqs=required", "rediss://h:1/2?ssl_cert_reqs=required"),
    ],
)
def test_the_spellings_of_celery_and_of_redis_py_are_understood(url: str, expected: str) -> None:
    assert settings(global_rate_url=url).url == expected


NAMED = {"master_name": "shop"}


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ({"broker_url": "sentinel://a:1/2", "broker_transport_options": NAMED}, "sentinel://a:1/2"),
        (
            {"broker_url": "sentinel://a:1;sentinel://b:2/3", "broker_transport_options": NAMED},
            "sentinel://a:1;sentinel://b:2/3",
        ),
        (
            {"broker_url": ["sentinel://a:1/3", "sentinel://b:2/3"], "broker_transport_options": NAMED},
            "sentinel://a:1/3;sentinel://b:2/3",
        ),
        (
            {"broker_url": "sentinel://a:1", "global_rate_redis_options": {"service_name": "shop"}},
            "sentinel://a:1",
        ),
        (
            {
                "broker_url": "amqp://",
                "result_backend": "sentinel://a:1/3;sentinel://b:2/3",
                "result_backend_transport_options": NAMED,
            },
            "sentinel://a:1/3;sentinel://b:2/3",
        ),
        (
            {"global_rate_url": "sentinel://a:1", "global_rate_redis_options": {"service_name": "shop"}},
            "sentinel://a:1",
        ),
        ({"global_rate_url": "sentinel://a:1?service_name=shop"}, "sentinel://a:1"),
    ],
)
def test_sentinels_are_the_ones_named_else_those_of_the_broker_else_of_the_result_backend(
    conf: dict[str, Any], expected: str
) -> None:
    made = settings(**conf)

    assert made.address == made.url == f"{expected}?service_name=shop"
    assert "service_name" not in made.redis_options


def test_user_password_database_and_parameters_of_a_master_may_stand_at_any_of_its_sentinels() -> None:
    connection = settings(
        global_rate_url=f"sentinel://h;sentinel://user:{SECRET}@[::1]:2/3?client_name=limits;sentinel://c:3/3",
        global_rate_redis_options={"service_name": "a shop&", "min_other_sentinels": 1, "socket_timeout": 5},
    ).connection()
    asked = [client.connection_pool.connection_kwargs for client in connection._sentinel.sentinels]

    assert [(each["host"], each["port"]) for each in asked] == [("h", 26379), ("::1", 2), ("c", 3)]
    assert (connection.username, connection.password, connection.db) == ("user", SECRET, 3)
    assert (connection.client_name, connection.socket_timeout) == ("limits", 5)
    assert connection._service_name == "a shop&"
    assert connection._sentinel.min_other_sentinels == 1


def test_sentinels_get_short_timeouts_and_no_password_of_the_master() -> None:
    """A Sentinel that is gone costs one timeout, not redis-py's tries with pauses of up to 10 s."""
    connection = settings(global_rate_url=f"sentinel://:{SECRET}@h?service_name=shop").connection()
    (asked,) = [client.connection_pool.connection_kwargs for client in connection._sentinel.sentinels]

    assert (asked["socket_timeout"], asked["socket_connect_timeout"]) == (CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S)
    assert asked["retry"]._retries == 0
    assert asked["password"] is None


@pytest.mark.parametrize(
    ("url", "options", "is_tls"),
    [
        ("redis+cluster://h;redis+cluster://user:s3cret@[::1]:2/0?client_name=limits", {}, False),
        ("rediss+cluster://user:s3cret@h;rediss+cluster://[::1]:2?client_name=limits", {}, True),
        ("redis+cluster://h/0;redis+cluster://user:s3cret@[::1]:2?client_name=limits", {"ssl": True}, True),
    ],
)
def test_user_password_and_parameters_may_stand_at_any_node_of_a_cluster(
    url: str, options: dict[str, Any], is_tls: bool
) -> None:
    made = settings(global_rate_url=url, global_rate_redis_options={"socket_timeout": 5, **options})
    connection = made.connection()

    assert connection._nodes == [("h", 6379), ("::1", 2)]
    assert (connection.username, connection.password, connection.db) == ("user", SECRET, 0)
    assert (connection.client_name, connection.socket_timeout) == ("limits", 5)
    assert isinstance(connection, redis.SSLConnection) == is_tls
    assert SECRET not in made.address + repr(made)


def test_the_environment_of_celery_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://environment:1/2")

    assert settings(broker_url="redis://setting:1/2").url == "redis://environment:1/2"


def test_a_setting_of_none_is_not_set_and_an_empty_one_is_refused() -> None:
    """An empty text comes of a variable that was forgotten; another Redis than the one meant would be no limit."""
    assert settings(global_rate_url=None).url == BROKER
    assert refusal(global_rate_url="").startswith("global_rate_url is not a URL")
    with pytest.raises(ImproperlyConfigured, match="--global-rate-url is not a URL"):
        Settings.from_app(application(broker_url=BROKER), "")


def test_the_parts_of_the_url_reach_redis_py() -> None:
    connection = settings(global_rate_url=f"redis://user:{SECRET}@host:7/3").connection()

    assert (connection.host, connection.port, connection.db) == ("host", 7, 3)
    assert (connection.username, connection.password) == ("user", SECRET)


def test_a_connection_has_short_timeouts_that_options_may_change_and_the_protocol_they_may_not() -> None:
    plain = settings().connection()
    changed = settings(global_rate_redis_options={"socket_timeout": 5, "protocol": 3}).connection()

    assert (plain.socket_timeout, plain.socket_connect_timeout) == (CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S)
    assert (changed.socket_timeout, changed.socket_connect_timeout) == (5, CONNECT_TIMEOUT_S)
    assert int(plain.protocol) == int(changed.protocol) == 2


@pytest.mark.parametrize("namespace", ["CELERY", "CELERY_", "celery", "proj"])
def test_settings_are_found_under_a_namespace(namespace: str) -> None:
    start = namespace.rstrip("_") + "_"
    names = ["broker_url", *(f"global_rate_{name}" for name in ("url", "key_prefix", "max_held", "consumer_timeout"))]
    names = [start + (name.upper() if start.isupper() else name) for name in names]
    app = namespaced(namespace, **dict(zip(names, ["amqp://", "redis://own:1/2", "shop:", 7, 60])))

    assert Settings.from_app(app) == Settings("redis://own:1/2", {}, "shop:", 7, 60)


def test_what_is_inherited_is_found_under_a_namespace_and_by_its_old_names() -> None:
    tls, named = {"ssl_cert_reqs": "CERT_NONE"}, {"master_name": "shop"}
    new = namespaced("CELERY", CELERY_BROKER_URL="redis://h", CELERY_BROKER_USE_SSL=tls)
    old = Celery("proj", set_as_current=False)
    old.config_from_object({"BROKER_URL": "sentinel://h", "BROKER_TRANSPORT_OPTIONS": named})

    assert Settings.from_app(new).redis_options == {"ssl": True, "ssl_cert_reqs": "none"}
    assert Settings.from_app(old).address == "sentinel://h?service_name=shop"


@pytest.mark.parametrize("name", ["global_rate_ulr", "global_rate_maxheld", "global_rate_", "GLOBAL_RATE_ULR"])
def test_a_misspelt_setting_is_refused_with_the_names_there_are(name: str) -> None:
    text = refusal(**{name: 1})

    assert text.startswith(f"{name} is not a setting")
    assert all(known in text for known in KNOWN)


def test_a_misspelt_setting_is_refused_under_a_namespace() -> None:
    app = namespaced("CELERY", CELERY_BROKER_URL=BROKER, CELERY_GLOBAL_RATE_ULR=1)

    with pytest.raises(ImproperlyConfigured, match="CELERY_GLOBAL_RATE_ULR is not a setting"):
        Settings.from_app(app)


def test_a_misspelt_setting_is_refused_under_a_namespace_that_has_been_read() -> None:
    app = namespaced("CELERY", CELERY_BROKER_URL=BROKER, CELERY_GLOBAL_RATE_ULR=1)
    assert app.conf.broker_url == BROKER

    with pytest.raises(ImproperlyConfigured, match="CELERY_GLOBAL_RATE_ULR is not a setting"):
        Settings.from_app(app)


def test_a_setting_of_somebody_else_is_none_of_ours_under_a_namespace() -> None:
    app = namespaced("CELERY", CELERY_BROKER_URL=BROKER, GLOBAL_RATE_LIMIT_OF_THE_SHOP=5)

    assert Settings.from_app(app).url == BROKER


def test_a_setting_in_capitals_without_a_namespace_is_refused_or_obeyed() -> None:
    try:
        url = settings(GLOBAL_RATE_URL="redis://own:1/2").url
    except ImproperlyConfigured as refused:
        assert "GLOBAL_RATE_URL" in str(refused)  # noqa: PT017
    else:
        assert url == "redis://own:1/2"


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"global_rate_key_prefix": ""}, ["global_rate_key_prefix = ''", "without braces"]),
        ({"global_rate_key_prefix": "a{b}"}, ["global_rate_key_prefix = 'a{b}'", "without braces"]),
        ({"global_rate_key_prefix": 5}, ["global_rate_key_prefix = 5", "non-empty string"]),
        *(
            ({"global_rate_consumer_timeout": value}, [f"{value!r}", "seconds"])
            for value in (-1, "5", float("inf"), float("nan"), True, None)
        ),
        *(
            ({"global_rate_backoff": value}, [f"global_rate_backoff = {value!r}: use True, False, or the longest"])
            for value in (0, -1, "soon", "", float("inf"), [True])
        ),
        *(({"global_rate_max_held": value}, [f"{value!r}", "whole number"]) for value in (-1, "5", 1.5, True, None)),
        *(({"global_rate_redis_options": value}, [type(value).__name__, "dictionary"]) for value in NO_DICTIONARIES),
        (
            {"global_rate_redis_options": {"pasword": SECRET}},
            [
                "broker_url = redis://broker:6379/0",
                "with pasword",
                "names in broker_use_ssl, global_rate_redis_options",
            ],
        ),
        (
            {"global_rate_url": "sentinel://h:1"},
            ["= sentinel://h:1:", "'service_name' in global_rate_redis_options", "?service_name="],
        ),
        (
            {"broker_url": f"sentinel://:{SECRET}@h:1;sentinel://i:2"},
            ["= sentinel://h:1;sentinel://i:2:", "set 'master_name' in broker_transport_options"],
        ),
        (
            {"broker_url": "amqp://", "result_backend": f"sentinel://:{SECRET}@h:1"},
            ["= sentinel://h:1:", "'master_name' in result_backend_transport_options"],
        ),
        (
            {
                "broker_url": f"sentinel://:{SECRET}@h:1",
                "broker_transport_options": {"master_name": "shop", "sentinel_kwargs": {"pasword": SECRET}},
            },
            ["sentinel://h:1?service_name=shop", "sentinel_kwargs", "global_rate_redis_options"],
        ),
        (
            {"broker_url": f"redis://:{SECRET}@h:1", "broker_use_ssl": {"certs": SECRET}},
            ["redis://h:1", "ssl, certs", "or set global_rate_url"],
        ),
        (
            {"broker_url": "amqp://", "result_backend": "redis://h:1", "redis_backend_use_ssl": {"certs": SECRET}},
            ["redis://h:1", "ssl, certs"],
        ),
        ({"global_rate_url": f"redis-cluster://:{SECRET}@h"}, ["redis-cluster://...", "redis+cluster, rediss+cluster"]),
        ({"global_rate_url": "redis+cluster://a;rediss+cluster://b"}, ["each as redis+cluster://host:port"]),
        ({"global_rate_url": f"redis+cluster://:{SECRET}@a:1/2"}, ["redis+cluster://a:1/2", "database 0, not 2"]),
        ({"global_rate_url": f"redis+cluster://a;redis+cluster://:{SECRET}@b?db=1"}, ["database 0, not 1"]),
        (
            {"global_rate_url": "redis+cluster://a", "global_rate_redis_options": {"db": 1}},
            ["database 0, not 1", "global_rate_redis_options"],
        ),
        ({"global_rate_url": f"redis+cluster://:{SECRET}@h:port"}, ["redis+cluster://h:port", "port and database"]),
        ({"global_rate_url": f"redis://:{SECRET}@a:1;redis://b:2/0"}, ["redis://a:1;redis://b:2/0", "name one Redis"]),
        ({"global_rate_url": "sentinel://a:1;redis://b:2/0"}, ["name one Redis", "each as sentinel://"]),
        ({"global_rate_url": f"sentinel://:{SECRET}@a:1;b:2"}, ["each as sentinel://"]),
        ({"global_rate_url": ["sentinel://a:1"]}, ["is not a URL"]),
        ({"global_rate_url": "localhost:6379"}, ["global_rate_url is not a URL", "redis://localhost"]),
        ({"global_rate_url": 5}, ["global_rate_url is not a URL", "redis://localhost"]),
        ({"global_rate_url": f"http://:{SECRET}@h"}, ["global_rate_url = http://...", "rediss"]),
        ({"global_rate_url": f"redis://:{SECRET}@h:port/1"}, ["redis://h:port/1", "port and database"]),
        ({"global_rate_url": f"redis://:{SECRET}@h:99999/1"}, ["redis://h:99999/1", "port and database"]),
        ({"global_rate_url": f"redis://h:1/1?password={SECRET}&nosuch=1"}, ["redis://h:1/1", "global_rate_url"]),
        (
            {"global_rate_url": f"rediss://:{SECRET}@h:1/1?ssl_cert_reqs=CERT_MAYBE"},
            ["rediss://h:1/1", "global_rate_url"],
        ),
    ],
)
def test_an_invalid_setting_is_refused_by_name_and_with_the_remedy(conf: dict[str, Any], words: list[str]) -> None:
    text = refusal(**conf)
    names = [name for name, value in conf.items() if value != "amqp://"]

    assert all(word in text for word in [*names, *words]), text
    assert SECRET not in text


@pytest.mark.parametrize("url", ["redis://[::1/2", f"redis://:{SECRET}@[::1/2"])
def test_half_an_ipv6_address_is_refused_like_any_other_url(url: str) -> None:
    assert SECRET not in refusal(global_rate_url=url)


@pytest.mark.parametrize("password", [f"{SECRET}/x", f"{SECRET}?x", f"{SECRET}#x", f"12/{SECRET}", f"x@y/{SECRET}"])
def test_a_password_with_a_sign_that_should_have_been_quoted_is_not_shown(password: str) -> None:
    try:
        shown = settings(global_rate_url=f"redis://:{password}@h:1/1").address
    except ImproperlyConfigured as refused:
        shown = str(refused)

    assert SECRET not in shown


def test_a_database_that_is_no_number_is_refused() -> None:
    assert "abc" in refusal(global_rate_url="redis://h:1/abc")


@pytest.mark.parametrize("host", ["h:1", "[::1]:1", "h"])
def test_the_address_for_logs_hides_user_password_and_options(host: str) -> None:
    shown = settings(global_rate_url=f"redis://user:{SECRET}@{host}/1?client_name={SECRET}").address
    master = f"sentinel://user:{SECRET}@{host}/1?client_name={SECRET}&service_name=shop;sentinel://:{SECRET}@b:2/1"

    assert shown == f"redis://{host}/1"
    assert settings(broker_url="redis+socket:///run/redis.sock?virtual_host=2").address == "unix:///run/redis.sock?db=2"
    assert settings(global_rate_url=master).address == f"sentinel://{host}/1?service_name=shop;sentinel://b:2/1"


def test_the_repr_hides_url_and_options() -> None:
    shown = repr(settings(global_rate_url=f"redis://:{SECRET}@h:1/1", global_rate_redis_options={"password": SECRET}))

    assert SECRET not in shown
    assert "password" not in shown
