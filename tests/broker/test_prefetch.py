"""Prefetch slots for held messages, on kombu's own QoS."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.common import QoS

from celery_global_rate.broker.prefetch import Credit, Renew

HISTORIES = st.lists(st.integers(0, 300) | st.integers(0, 5), max_size=60)

HAS_CEILING = "max_prefetch" in inspect.signature(QoS).parameters


class Channel:
    """What the worker's loop does with a QoS once a turn: it sends the broker what has changed."""

    def __init__(self, prefetch: int, max_prefetch: int | None = None) -> None:
        self.sent: list[int] = []
        self.more: Callable[[], None] | None = None
        ceiling = {} if max_prefetch is None else {"max_prefetch": max_prefetch}
        self.qos = QoS(self._send, prefetch, **ceiling)
        self.turn()

    def _send(self, prefetch_count: int) -> None:
        self.sent.append(prefetch_count)
        if self.more is not None:
            more, self.more = self.more, None
            more()

    def turn(self) -> None:
        if self.qos.prev != self.qos.value:
            self.qos.update()

    @property
    def prefetch_count(self) -> int:
        """What the broker knows after a turn of the loop."""
        self.turn()
        return self.sent[-1]


class Lender:
    """A credit that lends from one channel."""

    def __init__(self, channel: Channel, most: int = 100) -> None:
        self.credit, self.channel = Credit(most, lambda: most, lambda qos: None), channel

    @property
    def lent(self) -> int:
        return self.credit.lent

    def cover(self, held: int) -> None:
        self.credit.cover(held, self.channel.qos)


def lend(channel: Channel, most: int = 100) -> Lender:
    return Lender(channel, most)


def test_it_lends_in_steps_of_the_prefetch_count() -> None:
    """Prefetch 4: held messages one by one to 12, and the broker gets a new count at 1, 5 and 9 only."""
    channel = Channel(4)
    credit = lend(channel)
    for held in range(13):
        credit.cover(held)
        channel.turn()

    assert channel.sent == [4, 8, 12, 16]
    assert credit.lent == 12


@pytest.mark.parametrize(("prefetch", "step"), [(1, 1), (8, 8), (16, 16), (64, 16), (1000, 16)])
def test_a_step_is_the_prefetch_count_up_to_16(prefetch: int, step: int) -> None:
    channel = Channel(prefetch)
    lend(channel).cover(1)

    assert channel.prefetch_count == prefetch + step


def test_it_says_once_that_no_more_is_lent(caplog: pytest.LogCaptureFixture) -> None:
    credit = lend(Channel(4), 50)
    for held in (49, 50, 49, 60, 0, 50):
        credit.cover(held)
    said = [record.getMessage() for record in caplog.records]

    assert len(said) == 1
    assert "has reached global_rate_max_held (50 held tasks)" in said[0]


def test_nothing_is_said_where_nothing_is_lent(caplog: pytest.LogCaptureFixture) -> None:
    for credit in (lend(Channel(0)), lend(Channel(4), 0)):
        credit.cover(1000)

    assert not caplog.records


def test_it_goes_up_at_once() -> None:
    """All of it in one change, the moment more is held than lent."""
    channel = Channel(4)
    lend(channel).cover(50)
    channel.turn()

    assert channel.sent == [4, 4 + 52]


def test_it_goes_down_when_two_steps_too_many_are_out() -> None:
    """Prefetch 4, 40 lent: nothing changes down to 33 held, at 32 eight go back, and at 0 all of it."""
    channel = Channel(4)
    credit = lend(channel)
    credit.cover(40)
    lent = []
    for held in (39, 33, 32, 29, 25, 24, 1, 0):
        credit.cover(held)
        lent.append(credit.lent)

    assert lent == [40, 40, 32, 32, 32, 24, 4, 0]
    assert channel.prefetch_count == 4


def test_a_number_that_swings_by_a_step_changes_nothing() -> None:
    """On RabbitMQ each change is a round trip."""
    channel = Channel(4)
    credit = lend(channel)
    credit.cover(20)
    channel.turn()
    sent = len(channel.sent)
    for held in (17, 16, 20, 13, 20, 15) * 10:
        credit.cover(held)
        channel.turn()

    assert len(channel.sent) == sent


@given(st.integers(1, 70), st.integers(0, 200), HISTORIES)
def test_never_more_than_most_and_back_where_it_began(prefetch: int, most: int, history: list[int]) -> None:
    """Whatever was held in between; and as long as something is held, enough is lent for it."""
    channel = Channel(prefetch)
    credit = lend(channel, most)
    for held in history:
        credit.cover(held)

        assert min(held, most) <= credit.lent <= most
        assert channel.prefetch_count == prefetch + credit.lent
    credit.cover(0)

    assert channel.prefetch_count == prefetch
    assert credit.lent == 0


@pytest.mark.skipif(not HAS_CEILING, reason="worker_eta_task_limit came with kombu 5.6")
@given(
    st.integers(1, 70),
    st.integers(1, 50),
    st.lists(st.tuples(st.sampled_from(["held", "eta", "fired"]), st.integers(0, 50))),
)
def test_below_a_largest_prefetch_celery_has_the_room_that_it_has_alone(
    prefetch: int, room: int, history: list[tuple[str, int]]
) -> None:
    """`worker_eta_task_limit` caps what Celery adds for tasks with an ETA: what is lent counts on neither side."""
    channel, alone = Channel(prefetch, prefetch + room), QoS(lambda prefetch_count: None, prefetch, prefetch + room)
    credit = lend(channel, 200)
    waiting = 0
    for what, held in history:
        if what == "held":
            credit.cover(held)
        elif what == "eta":
            for qos in (channel.qos, alone):
                qos.increment_eventually()
            waiting += 1
        elif waiting and alone.value > 1:  # Celery takes back more than it gave, down to 1
            for qos in (channel.qos, alone):
                qos.decrement_eventually()
            waiting -= 1

        assert channel.prefetch_count == alone.value + credit.lent
    credit.cover(0)

    assert (channel.qos.value, channel.qos.max_prefetch) == (alone.value, alone.max_prefetch)


@given(st.integers(1, 70), st.lists(st.tuples(st.sampled_from(["held", "eta", "fired"]), st.integers(0, 50))))
def test_tasks_with_an_eta_lend_beside_it(prefetch: int, history: list[tuple[str, int]]) -> None:
    """Celery raises the count by one for each task with an ETA, and lowers it when the task is due."""
    channel = Channel(prefetch)
    credit = lend(channel)
    waiting = 0
    for what, held in history:
        if what == "held":
            credit.cover(held)
        elif what == "eta":
            channel.qos.increment_eventually()
            waiting += 1
        elif waiting:
            channel.qos.decrement_eventually()
            waiting -= 1
    credit.cover(0)

    assert channel.prefetch_count == prefetch + waiting


@given(HISTORIES)
def test_an_unlimited_prefetch_is_left_alone(history: list[int]) -> None:
    """Prefetch 0 is no limit; raising it would be one."""
    channel = Channel(0)
    credit = lend(channel)
    for held in history:
        credit.cover(held)
        channel.turn()

    assert channel.sent == [0]
    assert credit.lent == 0


def test_after_a_reconnect_it_starts_from_nothing() -> None:
    """A reconnect brings another QoS, with the prefetch count of the worker: nothing of the old one is given back."""
    before, after = Channel(4), Channel(8)
    credit = lend(before)
    credit.cover(30)
    lent_before = credit.lent
    credit.channel = after
    credit.cover(0)
    lent_after, unchanged = credit.lent, after.prefetch_count
    credit.cover(3)

    assert (lent_before, lent_after) == (32, 0)
    assert unchanged == 8
    assert after.prefetch_count == 8 + 8
    assert before.prefetch_count == 4


@given(st.integers(1, 8), st.lists(st.integers(0, 60) | st.just("end"), max_size=60))
def test_celery_restores_its_own_count_after_a_lost_connection(busy: int, history: list[Any]) -> None:
    """Of 4 a process with 8 processes, `busy` of which were: it begins with less, and adds 4 with each task that ends.

    It sets its counter to what it finds there and 4 more, at most to 32: what was lent was gone then, and what was
    taken back later went below its own.
    """
    channel, alone = Channel(max(4, 32 - 4 * busy)), Channel(max(4, 32 - 4 * busy))
    credit = lend(channel)
    for what in history:
        if what == "end":
            for qos in (channel.qos, alone.qos):
                qos.value = min(32, qos.value + 4)
                qos.set(qos.value)
        else:
            credit.cover(what)

        assert channel.qos.value == alone.qos.value
        assert channel.prefetch_count == alone.prefetch_count + credit.lent
    credit.cover(0)

    assert channel.prefetch_count == alone.prefetch_count


def test_a_change_that_comes_during_a_call_of_the_broker_is_sent_as_well() -> None:
    """RabbitMQ delivers while it is waited for: one more is held inside the callback."""
    channel = Channel(4)
    credit = lend(channel)
    credit.cover(4)
    channel.more = lambda: credit.cover(5)

    assert channel.prefetch_count == 4 + 8


def test_without_a_connection_nothing_happens() -> None:
    credit = Credit(100, lambda: 100, lambda qos: None)
    credit.cover(10, None)
    credit.cover(0, None)

    assert credit.lent == 0


class FixedConsumer:
    """A broker that counts for each consumer, and a worker's part of it.

    The count of a consumer is what it was when that began; what the one before has brought counts for nobody.
    """

    def __init__(self, prefetch: int, most: int) -> None:
        self.qos = QoS(lambda prefetch_count: None, prefetch)
        self.credit = Credit(most, lambda: most, self._renewal)
        self.own = self.prefetch_count = prefetch
        self.held: list[int] = []
        self.consumer = 0

    def _renewal(self, qos: QoS) -> Renew:
        return self._renew

    def _renew(self, more: int) -> None:
        self.prefetch_count = self.own + more
        self.consumer += 1

    @property
    def free(self) -> int:
        """What the consumer in place may bring yet."""
        return self.prefetch_count - self.held.count(self.consumer)

    def bring(self, limited: int) -> None:
        """A backlog of limited tasks comes, as many as the broker sends."""
        for _ in range(limited):
            if self.free > 0:
                self.held.append(self.consumer)
                self.credit.received()
                self.credit.cover(len(self.held), self.qos)

    def release(self, count: int) -> None:
        """The first ones start, and are acknowledged."""
        del self.held[:count]
        self.credit.cover(len(self.held), self.qos)


def test_a_backlog_is_taken_in_few_windows() -> None:
    """Prefetch 8: up to the 100 that are lent, and less than a window beyond them; each time for twice as many."""
    worker = FixedConsumer(8, 100)
    worker.bring(1000)

    assert 100 - 8 < len(worker.held) <= 100 + 8
    assert worker.consumer <= 5


def test_a_steady_backlog_needs_a_new_window_every_other_step() -> None:
    """One starts, one comes: what an old consumer has brought gives nothing back to the one in place."""
    worker = FixedConsumer(8, 100)
    worker.bring(1000)
    before = worker.consumer
    least = 100
    for _ in range(1000):
        worker.release(1)
        worker.bring(1)
        least = min(least, len(worker.held))

    assert worker.consumer - before <= 1000 / 8
    assert least > 100 - 3 * 8


FIXED_HISTORIES = st.lists(st.tuples(st.sampled_from(["bring", "release"]), st.integers(1, 40)), max_size=60)


@given(st.integers(1, 70), st.integers(1, 200), FIXED_HISTORIES)
def test_a_fixed_window_has_room_for_other_tasks(prefetch: int, most: int, history: list[tuple[str, int]]) -> None:
    """As long as another step can be lent, what is held leaves half of Celery's own window free at the least.

    Never more is held than `most` and one window of Celery's, and the last consumer has Celery's own window.
    """
    worker = FixedConsumer(prefetch, most)
    step = min(16, prefetch, most)
    for what, count in history:
        getattr(worker, what)(count)

        if len(worker.held) <= most - step:
            assert worker.free >= max(1, prefetch // 2)
        assert len(worker.held) <= most + prefetch
        assert worker.qos.value == prefetch
    worker.release(len(worker.held))

    assert worker.prefetch_count == worker.qos.value == prefetch
    assert worker.credit.lent == 0
