"""Prefetch slots for held messages, on kombu's own QoS."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.common import QoS

from celery_global_rate.credit import Credit

HISTORIES = st.lists(st.integers(0, 300) | st.integers(0, 5), max_size=60)

HAS_CEILING = "max_prefetch" in inspect.signature(QoS).parameters


class Channel:
    """What the worker's loop does with a QoS once a turn: it tells the broker what has changed."""

    def __init__(self, prefetch: int, max_prefetch: int | None = None) -> None:
        self.told: list[int] = []
        ceiling = {} if max_prefetch is None else {"max_prefetch": max_prefetch}
        self.qos = QoS(self._tell, prefetch, **ceiling)
        self.turn()

    def _tell(self, prefetch_count: int) -> None:
        self.told.append(prefetch_count)

    def turn(self) -> None:
        if self.qos.prev != self.qos.value:
            self.qos.update()


class Lender:
    """A credit that lends from one channel."""

    def __init__(self, channel: Channel, most: int = 100) -> None:
        self.credit, self.channel = Credit(most), channel

    @property
    def lent(self) -> int:
        return self.credit.lent

    def cover(self, held: int) -> None:
        self.credit.cover(held, self.channel.qos)


def lend(channel: Channel, most: int = 100) -> Lender:
    return Lender(channel, most)


def test_it_lends_in_steps_of_the_prefetch_count() -> None:
    """Prefetch 4: held messages one by one to 12, and the broker is told at 1, 5 and 9 only."""
    channel = Channel(4)
    credit = lend(channel)
    for held in range(13):
        credit.cover(held)
        channel.turn()

    assert channel.told == [4, 8, 12, 16]
    assert credit.lent == 12


@pytest.mark.parametrize(("prefetch", "step"), [(1, 1), (8, 8), (16, 16), (64, 16), (1000, 16)])
def test_a_step_is_the_prefetch_count_up_to_16(prefetch: int, step: int) -> None:
    channel = Channel(prefetch)
    lend(channel).cover(1)

    assert channel.qos.value == prefetch + step


def test_it_goes_up_at_once() -> None:
    """All of it in one change, the moment more is held than lent."""
    channel = Channel(4)
    lend(channel).cover(50)
    channel.turn()

    assert channel.told == [4, 4 + 52]


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
    assert channel.qos.value == 4


def test_a_number_that_swings_by_a_step_changes_nothing() -> None:
    """On RabbitMQ each change is a round trip."""
    channel = Channel(4)
    credit = lend(channel)
    credit.cover(20)
    channel.turn()
    told = len(channel.told)
    for held in (17, 16, 20, 13, 20, 15) * 10:
        credit.cover(held)
        channel.turn()

    assert len(channel.told) == told


@given(st.integers(1, 70), st.integers(0, 200), HISTORIES)
def test_never_more_than_most_and_back_where_it_began(prefetch: int, most: int, history: list[int]) -> None:
    """Whatever was held in between; and as long as something is held, enough is lent for it."""
    channel = Channel(prefetch)
    credit = lend(channel, most)
    for held in history:
        credit.cover(held)

        assert min(held, most) <= credit.lent <= most
        assert channel.qos.value == prefetch + credit.lent
    credit.cover(0)

    assert channel.qos.value == prefetch
    assert credit.lent == 0


@pytest.mark.skipif(not HAS_CEILING, reason="worker_eta_task_limit came with kombu 5.6")
@given(st.integers(1, 70), st.integers(1, 50), HISTORIES)
def test_a_largest_prefetch_is_left_to_celery(prefetch: int, room: int, history: list[int]) -> None:
    """`worker_eta_task_limit` cuts what is granted and not what is given back: others in that room make it drift."""
    channel = Channel(prefetch, prefetch + room)
    credit = lend(channel, 200)
    for held in history:
        credit.cover(held)

        assert channel.qos.value == prefetch
    assert credit.lent == 0


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

    assert channel.qos.value == prefetch + waiting


@given(HISTORIES)
def test_an_unlimited_prefetch_is_left_alone(history: list[int]) -> None:
    """Prefetch 0 is no limit; raising it would be one."""
    channel = Channel(0)
    credit = lend(channel)
    for held in history:
        credit.cover(held)
        channel.turn()

    assert channel.told == [0]
    assert credit.lent == 0


def test_after_a_reconnect_it_starts_from_nothing() -> None:
    """A reconnect brings another QoS, with the prefetch count of the worker: nothing of the old one is given back."""
    before, after = Channel(4), Channel(8)
    credit = lend(before)
    credit.cover(30)
    lent_before = credit.lent
    credit.channel = after
    credit.cover(0)
    lent_after, unchanged = credit.lent, after.qos.value
    credit.cover(3)

    assert (lent_before, lent_after) == (32, 0)
    assert unchanged == 8
    assert after.qos.value == 8 + 8
    assert before.qos.value == 4 + 32


def test_without_a_connection_nothing_happens() -> None:
    credit = Credit(100)
    credit.cover(10, None)
    credit.cover(0, None)

    assert credit.lent == 0
