"""What a worker does with invalid input: one line that names it, and exit; and what it accepts silently.

Most cases call the check that a worker makes before it is built. One of each kind goes through a real process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured

from celery_global_rate.activation import check
from testbed.server import root

from ..conftest import Server

SECRET = "s3cret"
REDIS = f"redis://:{SECRET}@localhost:6379/0"
AMQP = f"amqp://guest:{SECRET}@localhost//"
AUTO = "celery_global_rate.auto"
FORMS = "use N/s, N/m or N/h"

#: From this line of a worker's log on the limits hold; one for each step.
SWITCHED_ON = "global-rate: limits are cluster-wide"
#: A worker that refuses does so in less, in seconds; it takes 0.6 s on a quiet machine.
QUICK_S = 10


def case(words: Sequence[str], broker: str = REDIS, conf: dict[str, Any] | None = None, **options: Any) -> Any:
    """Invalid input, and words of the refusal: the task or setting, the value, and the remedy."""
    setup = {"broker": broker, "conf": conf or {}, "options": options}
    return pytest.param(setup, words, id=" ".join(words[:2]))


NO_NUMBERS: list[object] = ["nan/s", "inf/s", True, []]
BAD = [
    *(case(["task proj.send", repr(rate), FORMS], rate_limit=rate) for rate in ("abc", "10/x", "10/d", "-5/s", -1)),
    *(case(["task proj.send", repr(rate), FORMS], rate_limit=rate) for rate in NO_NUMBERS),
    case(["task proj.send", "burst 0", "whole number from 1"], rate_limit="5/s", rate_burst=0),
    case(["task proj.send", "burst 0", "whole number from 1"], rate_burst=0),
    case(["task proj.send", "'1/h' takes over ten years", "of 1000000", FORMS], rate_limit="1/h", rate_burst=1_000_000),
    case(["task proj.send", "'fast'", FORMS], conf={"task_annotations": {"proj.send": {"rate_limit": "fast"}}}),
    case(["task proj.send", "'fast'", FORMS], conf={"task_annotations": [{}, {"*": {"rate_limit": "fast"}}]}),
    case(["task_default_rate_limit", "'slow'", FORMS], conf={"task_default_rate_limit": "slow"}),
    case(["global_rate_ulr", "not a setting", "global_rate_url,"], conf={"global_rate_ulr": REDIS}),
    case(["global_rate_key_prefix", "'a{b}'", "without braces"], conf={"global_rate_key_prefix": "a{b}"}),
    case(["global_rate_max_held", "'many'", "whole number"], conf={"global_rate_max_held": "many"}),
    case(["global_rate_redis_options", "pasword", "names"], conf={"global_rate_redis_options": {"pasword": SECRET}}),
    case(["global_rate_url", "http://", "use one of redis"], conf={"global_rate_url": f"http://:{SECRET}@h"}),
    case(["global_rate_url", "h:port", "port and database"], conf={"global_rate_url": f"redis://:{SECRET}@h:port/0"}),
    case(["global_rate_url", "neither the broker", "redis://localhost"], broker=AMQP),
    case(["global_rate_url", "result backend", "redis://localhost"], broker=AMQP, conf={"result_backend": "rpc://"}),
]


@pytest.mark.parametrize(("setup", "words"), BAD)
def test_what_is_invalid_is_refused_in_one_line(setup: dict[str, Any], words: Sequence[str]) -> None:
    app = Celery("proj", broker=setup["broker"], set_as_current=False)
    app.conf.update(setup["conf"])

    @app.task(name="proj.send", shared=False, **setup["options"])
    def send() -> None:
        """Nothing."""

    with pytest.raises(ImproperlyConfigured) as refused:
        check(app)
    line = str(refused.value)

    assert "\n" not in line
    assert all(word in line for word in words), line
    assert SECRET not in line


def test_a_bad_default_is_refused_where_every_task_has_a_rate_of_its_own() -> None:
    """Stock Celery reads it for its own tasks, and dies with a raw ValueError."""
    app = Celery("proj", broker=REDIS, set_as_current=False)
    app.conf.task_default_rate_limit = "slow"

    with pytest.raises(ImproperlyConfigured, match="'slow'"):
        check(app)


def environment(setup: dict[str, Any], **more: str) -> dict[str, str]:
    """Of a worker process whose application is made by this; warnings off, because root gets one from Celery."""
    ours = {"PYTHONPATH": str(root()), "PYTHONWARNINGS": "ignore", "GLOBAL_RATE_BAD": json.dumps(setup)}
    return {**os.environ, **ours, **more}


def command(*options: str) -> list[str]:
    start = [sys.executable, "-m", "celery", "-A", "tests.apps.bad", "worker", "-n", "start@lab", "-P", "solo"]
    return [*start, "--without-gossip", "--without-mingle", *options]


def refused(setup: dict[str, Any], *options: str) -> str:
    """What a worker that does not start says: its only line of output."""
    began = time.monotonic()
    worker = subprocess.run(
        command(*options), env=environment(setup), capture_output=True, text=True, timeout=60, check=False
    )
    assert worker.returncode not in (0, None)
    assert time.monotonic() - began < QUICK_S
    assert worker.stdout == ""
    assert SECRET not in worker.stderr
    return worker.stderr


@pytest.mark.parametrize(
    ("setup", "options", "words"),
    [
        ({"lines": 1, "options": {"rate_limit": "10/x"}}, [], ["task proj.send", "'10/x'", FORMS]),
        ({"options": {"rate_limit": "10/x"}}, ["--global-rate"], ["task proj.send", "'10/x'", FORMS]),
        ({"broker": AMQP, "lines": 1}, [], ["global_rate_url is not set", "redis://localhost"]),
        (
            {},
            ["--global-rate-url", f"redis://:{SECRET}@h:port/0"],
            ["--global-rate-url", "h:port", "port and database"],
        ),
        ({}, ["--global-rate-url="], ["--global-rate-url is not a URL", "redis://localhost"]),
        ({"options": {"rate_limit": "10/x"}}, ["-I", AUTO], ["task proj.send", "'10/x'", FORMS]),
        ({"options": {"rate_limit": "10/x"}, "conf": {"imports": [AUTO]}}, [], ["task proj.send", "'10/x'", FORMS]),
    ],
    ids=["two lines", "option", "no Redis", "bad URL", "URL of an unset variable", "include", "imports"],
)
def test_a_worker_refuses_in_one_line_and_ends(setup: dict[str, Any], options: list[str], words: list[str]) -> None:
    said = refused(setup, *options)

    assert said.count("\n") == 1, said
    assert said.startswith("global-rate: ")
    assert all(word in said for word in words)
    assert "Traceback" not in said


def test_a_stock_worker_dies_with_a_raw_key_error() -> None:
    said = refused({"options": {"rate_limit": "10/x"}})

    assert "Traceback" in said
    assert said.endswith("KeyError: 'x'\n")
    assert "proj.send" not in said


def started(log: Path, setup: dict[str, Any], until: str, *options: str, **more: str) -> str:
    """Start a worker, wait for a text in its log, end it, and return the log."""
    with log.open("wb") as output:
        worker = subprocess.Popen(
            command("-l", "INFO", *options), env=environment(setup, **more), stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 20
        while until not in log.read_text() and worker.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        alive = worker.poll() is None
        worker.terminate()
        code = worker.wait(20)
    finally:
        worker.kill()
        worker.wait()
    said = log.read_text()
    assert until in said, said
    assert alive, said
    assert code == 0, said
    assert SECRET not in said
    return said


RATE = {"rate_limit": "1/m"}


@pytest.mark.parametrize(
    ("lines", "options", "more"),
    [
        (0, ["--global-rate"], {}),
        (0, [], {"CELERY_WORKER_GLOBAL_RATE": "1"}),
        (0, ["--global-rate-url", "limiter"], {}),
        (0, ["-I", AUTO], {}),
        (2, ["--global-rate", "-I", AUTO, "-X", "other"], {}),
    ],
    ids=["option", "environment", "option with a URL", "include", "two lines twice, the option, include and -X"],
)
def test_every_switch_switches_it_on_once(
    empty_redis: Server, tmp_path: Path, lines: int, options: list[str], more: dict[str, str]
) -> None:
    """`-X other` keeps its meaning, which is `--exclude-queues`: the worker takes the queue that is left.

    A Redis without a password takes any for the user `default`; neither is in the log.
    """
    limiter = f"{empty_redis.url}/1"
    setup: dict[str, Any] = {"broker": f"{empty_redis.url}/0", "lines": lines, "options": RATE}
    if "-X" in options:
        setup["conf"] = {"task_queues": {"celery": {}, "other": {}}, "global_rate_url": limiter}
    with_password = limiter if "@" in limiter else limiter.replace("//", f"//default:{SECRET}@")
    said = started(
        tmp_path / "log", setup, SWITCHED_ON, *(with_password if it == "limiter" else it for it in options), **more
    )
    shown = limiter if {"limiter", "-X"} & set(options) else f"{empty_redis.url}/0"

    assert said.count(SWITCHED_ON) == 1
    assert "by the Redis at redis://" + shown.rpartition("//")[2].rpartition("@")[2] in said
    assert ".> celery " in said
    assert ".> other " not in said


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ({"option": 3, "environment": 2, "setting": 1}, 3),
        ({"environment": 2, "setting": 1}, 2),
        ({"setting": 1}, 1),
        ({}, 0),
    ],
    ids=["option", "environment", "setting", "default"],
)
def test_an_option_goes_before_its_environment_that_before_the_setting_that_before_the_default(
    empty_redis: Server, tmp_path: Path, says: dict[str, int], expected: int
) -> None:
    """Each names another database; an empty variable of the environment says nothing."""
    url = {what: f"{empty_redis.url}/{database}" for what, database in says.items()}
    conf = {"global_rate_url": url["setting"]} if "setting" in url else {}
    setup = {"broker": f"{empty_redis.url}/0", "lines": 1, "options": RATE, "conf": conf}
    options = [f"--global-rate-url={url['option']}"] if "option" in url else []
    more = {"CELERY_WORKER_GLOBAL_RATE_URL": url.get("environment", ""), "CELERY_WORKER_GLOBAL_RATE": ""}
    said = started(tmp_path / "log", setup, SWITCHED_ON, *options, **more)

    assert re.findall(r"by the Redis at \S+/(\d)\n", said) == [str(expected)]


@pytest.mark.parametrize(
    ("setup", "options", "more"),
    [
        ({"options": RATE}, [], {}),
        ({"options": RATE}, [], {"CELERY_WORKER_GLOBAL_RATE": "0"}),
        (
            {"lines": 1, "options": RATE, "conf": {"worker_disable_rate_limits": True}},
            ["--global-rate", "-I", AUTO],
            {"CELERY_WORKER_GLOBAL_RATE": "1"},
        ),
    ],
    ids=["nothing says so", "the environment says no", "rate limits are disabled"],
)
def test_a_worker_is_stock_where(
    empty_redis: Server, tmp_path: Path, setup: dict[str, Any], options: list[str], more: dict[str, str]
) -> None:
    said = started(tmp_path / "log", {"broker": f"{empty_redis.url}/0", **setup}, "ready.", *options, **more)

    assert "global-rate" not in said.partition("ready.")[2]


def test_disabled_rate_limits_are_not_checked(empty_redis: Server, tmp_path: Path) -> None:
    conf = {"worker_disable_rate_limits": True, "global_rate_ulr": 1}
    setup = {"broker": f"{empty_redis.url}/0", "lines": 1, "conf": conf, "options": {"rate_limit": "-5/s"}}

    assert "global-rate: " not in started(tmp_path / "log", setup, "ready.")


def test_a_test_process_starts_a_worker_after_it_has_refused_one(empty_redis: Server) -> None:
    """`start_worker` has a worker in a thread of the test's own process, where a refusal might leave something."""
    url = empty_redis.url
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.again", f"{url}/0", f"{url}/1"],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        cwd=root(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout.split()) == (0, ["refused", "refused", "refused", "3"]), done.stderr
