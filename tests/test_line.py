"""Places in the line for a process, on kombu's own semaphore."""

from __future__ import annotations

from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from celery_global_rate.line import PoolQueue, SemaphoreLine


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
    pool.line.line_up(1)
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


def test_a_turn_that_is_not_wanted_goes_to_who_is_next() -> None:
    pool = Pool()
    pool.send("a", "b")
    pool.line.line_up(2)
    pool.send("c")
    pool.end(2)
    pool.line.line_up(1)
    after_one = list(pool.started), pool.line.turns
    pool.line.line_up(0)

    assert after_one == (["a", "b", "turn", "turn", "c"], 1)
    assert pool.line.turns == 0
    assert pool.semaphore.value == 1


def test_it_lines_up_no_more_often_than_it_was_told() -> None:
    """Told 2 a hundred times, with a turn among them: both processes are ours, and none is lost in the end."""
    pool = Pool()
    pool.send("a")
    for _ in range(100):
        pool.line.line_up(2)
    pool.end()
    both = pool.line.turns
    pool.line.line_up(0)

    assert both == 2
    assert pool.semaphore.value == 2


def test_after_a_reconnect_nothing_of_before_counts() -> None:
    """Celery clears its semaphore; a place that came through nevertheless is nobody's."""
    pool = Pool()
    pool.send("a", "b")
    pool.line.line_up(1)
    pool.line.clear()
    pool.end()

    assert pool.line.turns == 0
    assert pool.started == ["a", "b"]


def test_a_queue_inside_the_pool_takes_one_at_a_time_and_only_where_others_wait() -> None:
    free, on_deck = 0, 0
    queue = PoolQueue(lambda: free, lambda: on_deck)
    turns = {}
    for free, on_deck, places in ((0, 0, 1), (-1, 0, 1), (-2, 1, 1), (-1, 0, 0)):
        queue.line_up(places)
        turns[free, on_deck, places] = queue.turns

    assert turns == {(0, 0, 1): 0, (-1, 0, 1): 1, (-2, 1, 1): 0, (-1, 0, 0): 0}
