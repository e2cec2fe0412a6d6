"""Distinguishing remote control messages, and the same one in several workers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from celery_global_rate.worker.pidbox import Broadcast

BODY = {
    "method": "rate_limit",
    "arguments": {"task_name": "t", "rate_limit": "1/s"},
    "destination": None,
    "ticket": "x",
}
HEADERS = {"clock": 3, "expires": 1.5}


def heard(body: dict[str, Any], headers: dict[str, Any]) -> str:
    broadcast = Broadcast()
    broadcast.heard(body, headers)
    return broadcast.id


def test_all_workers_that_hear_a_message_know_it_by_the_same_id() -> None:
    assert heard(BODY, HEADERS) == heard(dict(reversed(BODY.items())), dict(HEADERS))
    assert heard(BODY, HEADERS).isalnum()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"ticket": "y"}, {}),
        ({"destination": ["w"]}, {}),
        ({"arguments": {"task_name": "t", "rate_limit": "2/s"}}, {}),
        ({"method": "rate_limit_reset"}, {}),
        ({}, {"clock": 4}),
        ({}, {"expires": 1.6}),
    ],
)
def test_another_message_has_another_id(body: dict[str, Any], headers: dict[str, Any]) -> None:
    assert heard({**BODY, **body}, {**HEADERS, **headers}) != heard(BODY, HEADERS)


def test_a_message_is_known_before_the_node_obeys_it_and_a_node_is_taken_once() -> None:
    broadcast = Broadcast()
    obeyed: list[str] = []
    node = SimpleNamespace(handle_message=lambda body, message=None: obeyed.append(broadcast.id))
    broadcast.listen(node)
    broadcast.listen(node)
    node.handle_message({**BODY, "destination": ["w"]}, SimpleNamespace(headers=HEADERS))
    node.handle_message(BODY)

    assert obeyed == [heard({**BODY, "destination": ["w"]}, HEADERS), heard(BODY, {})]
