"""Slots asked for and given back over a real connection in a real loop, while Redis answers and while it does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import ResponseError, TimeoutError

from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.redis_clock import RedisClock
from celery_global_rate.limits.reservation import Reservation, SlotsInHand
from celery_global_rate.limits.timing import REPLY_TIMEOUT_S, SILENCE_S
from celery_global_rate.storage.back_offs import BackOffs
from celery_global_rate.storage.hub_connection import REOPEN_LATE_S
from celery_global_rate.storage.limiter import Limiter
from celery_global_rate.storage.outage import Outage
from celery_global_rate.storage.outage_policies import Hold
from celery_global_rate.storage.overrides import Overrides
from celery_global_rate.storage.scripts import bucket_key, waiting_key
from testbed.proxy import Proxy
from testbed.server import Redis

from ..conftest import Server
from .wire import NOISE_S, TICK_S, Wire

LIMIT = Limit(10_000)  # 100/s
PREFIX, NAME = "global-rate:v1:test", "tasks.add"


class Heard(Outage):
    """What the limiter reports about Redis. Nothing starts in an outage."""

    def __init__(self) -> None:
        super().__init__("redis", Hold(), lambda: None)
        self.reports: list[object] = []

    def replied(self, name: str, reply: object) -> None:
        self.reports.append(reply)
        super().replied(name, reply)


class Client(Wire):
    """A limiter on a connection, and all that it has reported.

    Attributes:
        replies: the replies to `reserve`, in the order they came.
        reports: what the limiter reported.
        heard: the names of buckets for which an override has come.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.replies: list[Any] = []
        self.outage = Heard()
        self.reports = self.outage.reports
        self.heard: list[str] = []
        clock = RedisClock()
        self.overrides = Overrides(clock, self.heard.append)
        known = self.overrides, BackOffs(clock, lambda name, value: self.heard.append(name))
        self.limiter = Limiter(self.connection, PREFIX, "worker", clock, self.outage, Hold(), *known)

    def reserve(self, wanted: int = 1, limit: Limit = LIMIT) -> Reservation | None:
        """Ask for slots and wait for the reply."""
        known = len(self.replies)
        self.limiter.reserve(NAME, own(NAME, limit), wanted, self.replies.append)
        self.loop.run_until(lambda: len(self.replies) > known)
        return self.replies[-1]

    def granted(self, wanted: int = 1, limit: Limit = LIMIT) -> Reservation:
        """Ask for slots that Redis has."""
        reservation = self.reserve(wanted, limit)
        assert reservation is not None
        return reservation


@pytest.fixture
def client(redis_server: Server, redis_client: redis.Redis) -> Iterator[Client]:
    """To database 9, which is empty, and open."""
    with Client(f"{redis_server.url}/9") as client:
        client.open()
        yield client


def test_it_reserves_slots_in_a_row(client: Client, redis_client: redis.Redis) -> None:
    """4 slots and then 3, the second three right after the first four, on Redis' own clock."""
    seconds, us = redis_client.time()
    first = client.granted(4)
    second = client.granted(3)
    later_seconds, later_us = redis_client.time()

    assert isinstance(first, Reservation)
    assert (first.count, second.count) == (4, 3)
    assert second.first_us == first.slot_us(4) == first.first_us + 40_000
    assert seconds * 1_000_000 + us <= first.now_us <= second.now_us <= later_seconds * 1_000_000 + later_us
    assert (first.interval_us, first.interval_ps) == (10_000, 0)
    assert first.seq < second.seq
    assert first.waiting == second.waiting == 1
    assert len(client.reports) == 2


def test_replies_come_in_the_order_of_the_calls(client: Client) -> None:
    for _ in range(50):
        client.limiter.reserve(NAME, own(NAME, Limit(1)), 1, client.replies.append)
    client.loop.run_until(lambda: len(client.replies) == 50)

    serials = [reservation.seq for reservation in client.replies if reservation]
    assert len(serials) == 50
    assert serials == sorted(serials)


@pytest.mark.parametrize("delay_s", [0.0, 0.02])
def test_the_uncertainty_of_the_clock_is_a_round_trip(own_redis: Redis, delay_s: float) -> None:
    """Above the delay both ways, and below the shortest round trip that the caller measured plus 1 ms of drift.

    Redis runs on this machine, so the true difference of the clocks is known: it lies in the interval.
    """
    with Proxy(own_redis.port, delay_s) as proxy, Client(f"redis://127.0.0.1:{proxy.port}") as client:
        client.open()
        round_trips_s = []
        for _ in range(5):
            begin = time.monotonic()
            client.granted()
            round_trips_s.append(time.monotonic() - begin)
        clock = client.limiter.clock
        late_s = clock.reached(time.time() * 1e6) - time.monotonic()

        assert clock.uncertainty_s > 0
        assert 2 * delay_s <= clock.uncertainty_s <= min(round_trips_s) + 0.001
        assert clock.uncertainty_s <= clock.widest_s <= max(round_trips_s) + 0.001
        assert -0.0001 <= late_s <= clock.uncertainty_s + 0.001


def test_what_is_given_back_is_free_again(client: Client) -> None:
    """Three of eight slots used: the next reservation begins with the fourth."""
    first = client.granted(8)
    first.used = 3
    client.limiter.give_back(own(NAME, LIMIT), first)
    second = client.granted(8)

    assert second.first_us == first.slot_us(3)
    assert len(client.replies) == 2


def test_its_keys_carry_the_prefix_as_a_hash_tag(client: Client, redis_client: redis.Redis) -> None:
    """So that on a Cluster all of them live in one slot."""
    client.granted()
    keys = set(redis_client.keys())

    assert keys == {f"{{{PREFIX}}}:bucket:{NAME}", f"{{{PREFIX}}}:waiting:{NAME}"}
    assert keys == {bucket_key(PREFIX, NAME), waiting_key(PREFIX, NAME)}


def test_a_redis_that_forgot_the_scripts_is_told_again(client: Client, redis_client: redis.Redis) -> None:
    """Three calls at once after SCRIPT FLUSH: each gets one reply, and the answer of Redis in between is no trouble."""
    client.granted()
    redis_client.script_flush()
    for _ in range(3):
        client.limiter.reserve(NAME, own(NAME, LIMIT), 1, client.replies.append)
    client.loop.run_until(lambda: len(client.replies) == 4)
    client.loop.run_for(0.02)

    assert [reservation.count for reservation in client.replies if reservation] == [1, 1, 1, 1]
    assert not any(isinstance(report, Exception) for report in client.reports)
    redis_client.script_flush()
    reservation = client.granted(2)
    redis_client.script_flush()
    client.limiter.give_back(own(NAME, LIMIT), reservation)
    again = client.granted()  # if the slot is over by now, there is one at once
    assert again.first_us == max(reservation.first_us, again.now_us)


def test_an_error_reply_is_reported_and_answered_with_nothing(client: Client, redis_client: redis.Redis) -> None:
    redis_client.set(bucket_key(PREFIX, NAME), "no hash")
    refused = client.reserve()
    redis_client.delete(bucket_key(PREFIX, NAME))
    granted = client.reserve()

    assert refused is None
    assert granted is not None
    assert isinstance(client.reports[0], ResponseError)
    assert "WRONGTYPE" in str(client.reports[0])
    assert isinstance(client.reports[1], Reservation)
    assert len(client.changes) == 1


def test_all_that_were_refused_have_slots_again_at_once(client: Client, redis_client: redis.Redis) -> None:
    """Twenty buckets without slots for over a second, each asked every 20 ms. Each is tried again by itself.

    So all are over within REPLY_TIMEOUT_S and a few turns of each other, however many they are.
    """
    names = [f"tasks.{number}" for number in range(20)]
    for name in names:
        redis_client.set(bucket_key(PREFIX, name), "rubbish")

    def ask() -> None:
        for name in names:
            client.limiter.reserve(name, own(name, LIMIT), 1, lambda reservation: None)

    client.loop.tick(0.02, ask)
    client.loop.run_until(lambda: all(map(client.outage.counts, names)))
    redis_client.flushdb()
    back = time.monotonic()
    client.loop.run_until(lambda: not any(map(client.outage.counts, names)))

    assert time.monotonic() - back <= REPLY_TIMEOUT_S + NOISE_S


def test_an_answer_that_comes_after_the_giving_up_is_not_delivered(client: Client) -> None:
    """It lies in the socket unread while the connection is given up: one reply, None, and nothing later."""
    client.limiter.reserve(NAME, own(NAME, LIMIT), 1, client.replies.append)
    while not client.arrived():
        time.sleep(0.001)
    client.connection.lose(TimeoutError("given up"))
    at_once = list(client.replies)
    client.loop.run_for(REOPEN_LATE_S)
    client.reserve()
    client.open()

    assert at_once == [None]
    assert client.replies == [None, None]
    assert client.reserve() is not None
    assert len(client.replies) == 3


@pytest.mark.parametrize("unread", [False, True])
def test_what_was_given_back_just_before_a_detach_is_free(
    client: Client, redis_client: redis.Redis, unread: bool
) -> None:
    """Also where an answer has come that nobody has read: closing then reaches the server as a reset."""
    reservation = client.granted(8)
    key = bucket_key(PREFIX, NAME)
    if unread:
        client.send("PING")
        while not client.arrived():
            time.sleep(0.001)
    client.limiter.give_back(own(NAME, LIMIT), reservation)
    client.detach()
    deadline = time.monotonic() + 2
    while redis_client.hget(key, "slot") != str(reservation.first_us - 10_000):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    assert client.answers == []
    assert len(client.changes) == 1


def test_a_worker_that_was_busy_itself_reads_before_it_blames_redis(client: Client) -> None:
    """The loop stands still for longer than SILENCE_S with an answer in the socket: the connection stays."""
    client.limiter.reserve(NAME, own(NAME, LIMIT), 1, client.replies.append)
    while not client.arrived():
        time.sleep(0.001)
    time.sleep(SILENCE_S + 0.05)
    client.limiter.reserve(NAME, own(NAME, LIMIT), 1, client.replies.append)
    client.loop.run_until(lambda: len(client.replies) == 2)

    assert len(client.changes) == 1
    assert None not in client.replies


def test_a_hung_redis_blocks_nothing(own_redis: Redis) -> None:
    """SIGSTOP for 2 s with a call every 5 ms, then SIGCONT: no call and no turn of the loop waits for an answer.

    Calls of the first REPLY_TIMEOUT_S wait; from then on each is answered None at once. SILENCE_S after the first
    of them, at the next call, the connection is given up, and all that waited are answered None, each once.
    """
    with Client(own_redis.url) as client:
        client.open()
        client.granted()
        sent: list[float] = []
        answered: list[tuple[int, float, SlotsInHand | None]] = []
        longest_s = 0.0

        def remember(call: int) -> Callable[[SlotsInHand | None], None]:
            return lambda reservation: answered.append((call, time.monotonic(), reservation))

        def reserve() -> None:
            nonlocal longest_s
            sent.append(time.monotonic())
            client.limiter.reserve(NAME, own(NAME, LIMIT), 1, remember(len(sent) - 1))
            longest_s = max(longest_s, time.monotonic() - sent[-1])

        own_redis.suspend()
        client.loop.longest_turn_s = 0.0
        client.loop.tick(TICK_S, reserve)
        client.loop.run_for(2)
        own_redis.resume()
        stopped = len(sent)
        client.loop.run_until(lambda: any(reservation for _, _, reservation in answered), 5)

        begin = sent[0]
        given_up, reason = client.changes[1]
        waited_s = {call: instant - sent[call] for call, instant, _ in answered}
        assert longest_s < NOISE_S
        assert client.loop.longest_turn_s < NOISE_S
        assert isinstance(reason, TimeoutError)
        assert SILENCE_S < given_up - begin < SILENCE_S + NOISE_S
        assert len(waited_s) == len(answered)
        assert set(range(stopped)) <= set(waited_s)
        for call in range(stopped):
            # A call within 2 ms of the edge may fall on either side of it.
            if sent[call] < begin + REPLY_TIMEOUT_S - 0.002:
                assert waited_s[call] >= SILENCE_S - REPLY_TIMEOUT_S
            elif sent[call] > begin + REPLY_TIMEOUT_S + 0.002:
                assert waited_s[call] < NOISE_S
