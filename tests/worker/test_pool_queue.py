"""Places in the line for a process, on kombu's own semaphore."""

from __future__ import annotations

from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from celery_global_rate.scheduling.capacity import MOST_PLACES
from celery_global_rate.worker.pool_queue import MOMENT_S, PoolQueue, SemaphoreLine


class Pool:
    """Two processes behind a semaphore, and the order in which tasks got one."""

    def __init__(self) -> None:
        self.semaphore = LaxBoundedSemaphore(2)
        self.started: list[str] = []
        self.line = SemaphoreLine(self.semaphore)
        self.line.ready = lambda: self.started.append("turn")

    def send(self, *tasks: str) -> None:
        for task in tasks:
            self.semaphore.acquire(self.started.append, task)

    def end(self, count: int = 1) -> None:
        for _ in range(count):
            self.semaphore.release()


def test_a_place_waits_its_turn_and_its_task_passes_nobody() -> None:
    """Behind what came before, before what comes after; the task then takes the process although others wait."""
    pool = Pool()
    pool.send("a", "b", "c")
    pool.line.line_up(1, 1)
    pool.send("d")
    pool.end()
    before = list(pool.started), pool.line.turns
    pool.end()
    with_a_turn = pool.line.turns
    pool.line.take()
    pool.send("ours")
    pool.end()

    assert before == (["a", "b", "c"], 0)
    assert with_a_turn == 1
    assert pool.started == ["a", "b", "c", "turn", "ours", "d"]
    assert pool.line.turns == 0


def test_a_place_without_a_slot_lets_others_pass_and_stays_in_front() -> None:
    """Its turn comes, "c" passes, and once there is a slot the next process is ours, although "d" waits."""
    pool = Pool()
    pool.send("a", "b")
    pool.line.line_up(1, 0)
    pool.send("c", "d")
    pool.end()
    passed = list(pool.started), pool.line.turns, pool.line.in_front
    pool.line.line_up(1, 1)
    pool.end()
    claimed = list(pool.started), pool.line.turns, pool.line.in_front

    assert passed == (["a", "b", "c", "turn"], 0, 1)  # its turn has come: a slot would be of use
    assert claimed == (["a", "b", "c", "turn", "turn"], 1, 0)


def test_a_claim_remembers_how_long_it_waited() -> None:
    """A fifth of the way to 10 s from nothing."""
    pool, now = Pool(), [100.0]
    pool.line = SemaphoreLine(pool.semaphore, lambda: now[0])
    pool.send("a", "b")
    pool.line.line_up(1, 0)
    pool.send("c")
    pool.end()
    pool.line.line_up(1, 1)
    now[0] += 10
    pool.end()

    assert pool.line.wait_s == 2.0


def test_a_turn_that_is_not_wanted_goes_to_who_is_next_and_can_be_claimed_again() -> None:
    pool = Pool()
    pool.send("a", "b")
    pool.line.line_up(2, 2)
    pool.send("c")
    pool.end(2)
    pool.line.line_up(2, 1)
    after_one = list(pool.started), pool.line.turns, pool.line.in_front
    pool.line.line_up(0, 0)

    assert after_one == (["a", "b", "turn", "turn", "c"], 1, 1)
    assert (pool.line.turns, pool.line.in_front) == (0, 0)
    assert pool.semaphore.value == 1


def test_it_lines_up_no_more_often_than_asked() -> None:
    """Asked for 2 a hundred times, with a turn among them: both processes are ours, and none is lost in the end."""
    pool = Pool()
    pool.send("a")
    for _ in range(100):
        pool.line.line_up(2, 2)
    pool.end()
    both = pool.line.turns
    pool.line.line_up(0, 0)

    assert both == 2
    assert pool.semaphore.value == 2


def test_two_hundred_places_in_a_row_let_one_process_pass() -> None:
    """Each passes it on to the next, which calls back in turn: the stack holds them."""
    pool = Pool()
    pool.send("a", "b")
    pool.line.line_up(MOST_PLACES, 0)
    pool.send("c")
    pool.end()

    assert pool.started[:3] == ["a", "b", "c"]
    assert pool.line.in_front == MOST_PLACES


def test_after_a_reconnect_nothing_of_before_counts() -> None:
    """Celery clears its semaphore; a place that came through nevertheless is nobody's."""
    pool = Pool()
    pool.send("a", "b")
    pool.line.line_up(1, 1)
    pool.line.clear()
    pool.end()

    assert pool.line.turns == 0
    assert pool.started == ["a", "b"]
    assert pool.semaphore.value == 1


def test_a_queue_inside_the_pool_takes_so_many_and_only_where_others_wait() -> None:
    """(free, on deck): the turns, of places for five, where two may wait there.

    A slot finds its turn although it was not announced: there is nothing to claim, and a look later it may be over.
    """
    free, on_deck = 0, 0
    queue = PoolQueue(lambda: free, lambda: on_deck, lambda: 2)
    queue.line_up(5, 0)
    turns = {}
    for free, on_deck in ((0, 0), (-1, 0), (-2, 1), (-3, 2), (1, 0)):
        turns[free, on_deck] = queue.turns
    free, on_deck = -2, 0
    queue.line_up(1, 1)
    for_one = queue.turns
    queue.clear()

    assert turns == {(0, 0): 0, (-1, 0): 2, (-2, 1): 1, (-3, 2): 0, (1, 0): 0}
    assert for_one == 1
    assert queue.turns == 0


def test_others_that_waited_in_the_queue_a_moment_ago_come_back() -> None:
    """The greenlet that takes messages is away between two of them; after longer than that, nobody waits there."""
    free, now = -1, 100.0
    queue = PoolQueue(lambda: free, lambda: 0, lambda: 2, lambda: now)
    queue.line_up(5, 0)
    waiting = queue.turns
    free, now = 0, now + MOMENT_S / 2
    a_moment_ago = queue.turns
    now += MOMENT_S
    long_ago = queue.turns

    assert (waiting, a_moment_ago, long_ago) == (2, 2, 0)


def test_our_own_tasks_in_the_queue_are_no_crowd() -> None:
    """They would draw others of ours in for ever."""
    on_deck = 1
    queue = PoolQueue(lambda: -1, lambda: on_deck, lambda: 2)
    queue.line_up(5, 0)
    alone = queue.turns
    on_deck = 0
    with_another = queue.turns

    assert (alone, with_another) == (0, 2)


def test_a_slot_that_found_no_place_in_the_queue_is_looked_at_again_once_there_are_places() -> None:
    """It may be due already; and once is enough."""
    queue = PoolQueue(lambda: -1, lambda: 0, lambda: 2)
    calls: list[int] = []
    queue.ready = lambda: calls.append(queue.turns)
    for places in (0, 3, 3, 4):
        queue.line_up(places, 0)

    assert calls == [2]
