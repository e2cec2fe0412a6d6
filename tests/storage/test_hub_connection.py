"""A connection to Redis that the event loop never waits for: on a real hub, to real servers, through a real proxy."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError, ConnectionError, NoScriptError, ResponseError

from celery_global_rate.storage.hub_connection import REOPEN_LATE_S, REOPEN_S, pack
from testbed.proxy import Proxy
from testbed.server import Redis, free_port

from ..conftest import Server
from .wire import NOISE_S, TICK_S, Wire


@pytest.fixture
def wire(redis_server: Server, redis_client: redis.Redis) -> Iterator[Wire]:
    """To database 9, which is empty, and open."""
    with Wire(f"{redis_server.url}/9") as wire:
        wire.open()
        yield wire


def test_it_opens_in_a_thread_and_answers_in_the_loop_in_order(wire: Wire) -> None:
    """1000 commands without waiting, 100 kB in all, and as many others in between."""
    threads = set()
    for number in range(1000):
        wire.send("ECHO", str(number) * (1 + number % 50))
        wire.connection.send(("PING",), lambda answer: threads.add(threading.current_thread()))
    wire.loop.run_until(lambda: len(wire.answers) == 1000)

    assert wire.answers == [str(number).encode() * (1 + number % 50) for number in range(1000)]
    assert threads == {threading.current_thread()}
    assert [thread is threading.current_thread() for _, thread in wire.opened_by] == [False]
    assert wire.connection.silent_s == 0


def test_what_is_sent_together_is_one_write(wire: Wire) -> None:
    """Ten commands, in the order in which they were sent, and the next ones by themselves again."""
    written: list[bytes] = []

    class Socket:
        """The real one, with its writes noted."""

        def __init__(self, real: socket.socket) -> None:
            self.real = real

        def sendall(self, data: bytes) -> None:
            written.append(data)
            self.real.sendall(data)

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

    wire.connection._redis._sock = Socket(wire.connection._redis._sock)
    with wire.connection.together():
        for number in range(10):
            wire.send("ECHO", str(number))
        before = len(written)
    together = len(written)
    wire.send("ECHO", "10")
    wire.loop.run_until(lambda: len(wire.answers) == 11)

    assert (before, together, len(written)) == (0, 1, 2)
    assert wire.answers == [str(number).encode() for number in range(11)]


@pytest.mark.parametrize("words", [("PING",), ("EVAL", "return 1", 0), ("SET", "kü:{x}", b"\x00\r\n", -1, 2**53, "")])
def test_a_command_is_packed_as_redis_py_packs_it(words: tuple[Any, ...]) -> None:
    """Texts, bytes and whole numbers."""
    assert pack(words) == b"".join(redis.Connection().pack_command(*words))


def test_answers_that_arrive_together_are_given_in_one_turn(wire: Wire) -> None:
    """Ten that were asked for in one write, in one context; its error is guarded as those of answers are."""
    turns: list[list[object]] = []

    @contextlib.contextmanager
    def in_one_turn() -> Iterator[None]:
        before = len(wire.answers)
        yield
        turns.append(wire.answers[before:])
        raise ValueError("an error of the turn")

    wire.connection._in_one_turn = in_one_turn
    with wire.connection.together():
        for number in range(10):
            wire.send("ECHO", str(number))
    wire.loop.run_until(lambda: len(wire.answers) == 10)

    assert turns == [[str(number).encode() for number in range(10)]]


def test_a_connection_lost_meanwhile_answers_all_that_was_to_go_together(wire: Wire) -> None:
    """Each command has its error, once; what was not sent is never sent."""
    with wire.connection.together():
        wire.send("INCR", "count")
        wire.connection.lose(ConnectionError("gone"))
        wire.send("INCR", "count")
    assert len(wire.answers) == 2
    assert all(isinstance(answer, ConnectionError) for answer in wire.answers)

    wire.loop.run_until(lambda: wire.connection.open() or wire.connection._redis)  # type: ignore[func-returns-value]
    wire.send("GET", "count")
    wire.loop.run_until(lambda: len(wire.answers) == 3)
    assert wire.answers[2] is None


def test_an_answer_that_arrives_byte_by_byte_is_put_together(own_redis: Redis) -> None:
    """The first answer has 217 bytes, with a millisecond before each: over 0.2 s, and no turn waits for them."""
    with Proxy(own_redis.port, pause_s=0.001) as proxy, Wire(f"redis://127.0.0.1:{proxy.port}") as wire:
        wire.open()
        wire.loop.tick(TICK_S)
        wire.loop.longest_turn_s, begin = 0.0, time.monotonic()
        wire.send("ECHO", "a\r\n$3\r\n" * 30)
        wire.send("RPUSH", "list", "", "b\r\n", "c")
        wire.send("GET", "list")
        wire.send("LRANGE", "list", 0, -1)
        wire.send("GET", "nothing")
        wire.loop.run_until(lambda: len(wire.answers) == 5)
        took_s = time.monotonic() - begin

        assert wire.answers[:2] + wire.answers[3:] == [b"a\r\n$3\r\n" * 30, 3, [b"", b"b\r\n", b"c"], None]
        assert isinstance(wire.answers[2], ResponseError)
        assert took_s > 0.2
        assert wire.loop.longest_turn_s < NOISE_S


def test_error_replies_come_as_exceptions_in_order(wire: Wire) -> None:
    """Neither closes the connection, and the answers after it belong to their commands."""
    commands = ["SET", "text", "x"], ["LPUSH", "text", "y"], ["EVALSHA", "0" * 40, 0], ["NO-SUCH"], ["GET", "text"]
    for command in commands:
        wire.send(*command)
    wire.loop.run_until(lambda: len(wire.answers) == len(commands))
    ok, wrong_type, no_script, unknown, text = wire.answers

    assert (ok, text) == (b"OK", b"x")
    assert isinstance(wrong_type, ResponseError)
    assert "WRONGTYPE" in str(wrong_type)
    assert isinstance(no_script, NoScriptError)
    assert isinstance(unknown, ResponseError)
    assert len(wire.changes) == 1


def test_a_lost_connection_answers_all_and_opens_again_after_a_while(own_redis: Redis) -> None:
    """Three commands under way when the server closes: each is answered once, with the error that was reported.

    Asked in every turn of 5 ms, it opens again after REOPEN_S and not before, a few turns after REOPEN_LATE_S at last.
    """
    with Proxy(own_redis.port) as proxy, Wire(f"redis://127.0.0.1:{proxy.port}") as wire:
        wire.open()
        proxy.delay_s = 60
        for _ in range(3):
            wire.send("PING")
        proxy.cut()
        wire.loop.run_until(lambda: wire.answers)
        lost, error = wire.changes[1]
        proxy.delay_s = 0
        refused: list[object] = []
        wire.loop.tick(TICK_S, partial(wire.connection.send, ("PING",), refused.append))
        wire.open()

        assert isinstance(error, ConnectionError)
        assert wire.answers == [error] * 3
        assert [change for _, change in wire.changes] == [None, error, None]
        assert all(isinstance(answer, ConnectionError) for answer in refused)
        assert len(refused) >= 5
        assert len(wire.opened_by) == 2
        assert REOPEN_S <= wire.opened_by[1][0] - lost < REOPEN_LATE_S + NOISE_S
        assert wire.ask("ECHO", "again") == b"again"


def test_a_server_that_is_not_there_is_reported_and_tried_again() -> None:
    """Asked all the time for 1 s: a try and a report each REOPEN_S to REOPEN_LATE_S, until the server comes."""
    server = Redis(free_port())
    with contextlib.closing(server), Wire(server.url) as wire:
        wire.loop.tick(TICK_S, lambda: wire.send("PING"))
        wire.loop.run_for(1)
        tries = [instant for instant, _ in wire.opened_by]
        errors = [error for _, error in wire.changes]
        server.start()
        wire.loop.run_until(lambda: wire.changes[-1][1] is None)

        assert all(isinstance(error, ConnectionError) for error in errors)
        assert len(tries) - 1 <= len(errors) <= len(tries)
        assert 3 <= len(tries) <= 1 + 1 / REOPEN_S
        assert min(later - earlier for earlier, later in zip(tries, tries[1:])) >= REOPEN_S
        assert wire.loop.longest_turn_s < NOISE_S


def test_a_server_that_does_not_read_never_blocks(own_redis: Redis) -> None:
    """Stopped, and sent to until the socket takes no more: that loses the connection within a moment, not a timeout."""
    with Wire(own_redis.url) as wire:
        wire.open()
        own_redis.suspend()
        longest_s, sent = 0.0, 0
        while len(wire.changes) == 1:
            begin = time.monotonic()
            wire.send("ECHO", b"x" * 100_000)
            longest_s, sent = max(longest_s, time.monotonic() - begin), sent + 1
            assert sent < 1000
        own_redis.resume()

        assert longest_s < NOISE_S
        assert len(wire.answers) == sent
        assert len({id(answer) for answer in wire.answers}) == 1


@pytest.mark.parametrize("steps", [["detach"], ["reset", "detach"], ["detach", "reset"]], ids="-".join)
def test_it_moves_to_another_loop(wire: Wire, steps: list[str]) -> None:
    """Celery's loop resets the hub on its way out and stops the steps then, or before, or does not reset it at all."""
    wire.send("ECHO", "never answered")
    fd = wire.connection._fd
    for step in steps:
        {"detach": wire.detach, "reset": wire.loop.reset}[step]()
    assert fd not in wire.loop.hub.readers
    wire.attach()
    wire.open()

    assert wire.ask("ECHO", "answered") == b"answered"
    assert wire.answers == [b"answered"]


def test_a_wrong_password_is_reported_and_not_shown(
    own_redis: Redis, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a log record nor the error nor the output has it; and when it has become right, the connection opens."""
    caplog.set_level(logging.DEBUG)
    own_redis.client().config_set("requirepass", "right-one")
    with Wire(f"redis://:wrong-secret@127.0.0.1:{own_redis.port}") as wire:
        wire.loop.tick(TICK_S, lambda: wire.send("PING"))
        wire.loop.run_until(lambda: len(wire.changes) == 2)
        errors = [error for _, error in wire.changes]
        redis.Redis(port=own_redis.port, password="right-one").config_set("requirepass", "wrong-secret")
        wire.loop.run_until(lambda: wire.changes[-1][1] is None)
    texts = [caplog.text, *map(repr, errors), *capfd.readouterr()]

    assert all(isinstance(error, AuthenticationError) for error in errors)
    assert not any("wrong-secret" in text or "right-one" in text for text in texts)


def test_a_stop_while_the_connection_has_just_opened_is_no_end(redis_server: Server) -> None:
    """The thread has opened it, and the worker stops before its loop has heard of it: the next start opens another."""
    with Wire(f"{redis_server.url}/9") as wire:
        for thread in threading.enumerate():
            if thread.name == "global-rate-connect":
                thread.join(5)
        wire.detach()
        wire.attach()
        wire.loop.tick(TICK_S, lambda: wire.send("PING"))
        wire.open()
        wire.send("ECHO", "open")
        wire.loop.run_until(lambda: b"open" in wire.answers)


def test_an_error_in_an_answer_stops_neither_the_loop_nor_the_other_answers(wire: Wire) -> None:
    """Answers run the scheduler, and that the worker's own code: an error there must not end the worker's loop."""
    callbacks: tuple[Callable[[object], Any], ...] = (wire.answers.index, wire.answers.append)
    for number in range(4):
        wire.connection.send(("ECHO", number), callbacks[number % 2])
    wire.loop.run_until(lambda: len(wire.answers) == 2)
    for number in range(4):
        wire.connection.send(("ECHO", number), callbacks[number % 2])
    wire.connection.lose(ConnectionError("given up"))

    assert len(wire.answers) == 4


def test_a_loop_with_a_forked_child_sleeps_after_a_failed_write(own_redis: Redis) -> None:
    """A child of the pool holds the socket too, so closing it does not take it out of the loop's epoll.

    With nothing to do for 0.3 s the loop turns a few times; where the socket is left in, ten thousands of times.
    """
    with Wire(own_redis.url) as wire:
        wire.open()
        in_child = os.dup(wire.connection._fd)
        own_redis.suspend()
        while len(wire.changes) == 1:
            wire.send("ECHO", b"x" * 100_000)
        own_redis.resume()
        turns: list[None] = []
        wire.loop.hub.on_tick.add(partial(turns.append, None))
        wire.loop.run_for(0.3)
        os.close(in_child)

        assert len(turns) < 20
