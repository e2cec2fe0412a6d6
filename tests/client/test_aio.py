"""Tasks of asyncio that wait for slots, on a real server."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from celery_global_rate import AcquireTimeout

from .conftest import Bench
from .test_blocking import NOISE_S


def test_tasks_wait_for_slots_and_the_loop_goes_on(bench: Bench) -> None:
    limiter = bench.aio("50/s")
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.005)
            turns += 1

    async def main() -> float:
        begin = time.monotonic()
        await limiter.acquire()
        turning = asyncio.ensure_future(turn())
        await asyncio.gather(*(limiter.acquire() for _ in range(20)))
        turning.cancel()
        return time.monotonic() - begin

    seconds = asyncio.run(main())

    assert 0.4 <= seconds <= 0.4 + 2 * NOISE_S
    assert turns > 20
    assert bench.given() == 21


def test_who_does_not_wait_and_who_gives_up(bench: Bench) -> None:
    limiter = bench.aio("6/m")

    async def main() -> None:
        assert [await limiter.try_acquire() for _ in range(2)] == [True, False]
        begin = time.monotonic()
        for timeout in (0, 0.05, 1):
            with pytest.raises(AcquireTimeout) as refusal:
                await limiter.acquire(timeout)
            assert 9 < (refusal.value.retry_after or 0) <= 10
        assert time.monotonic() - begin < NOISE_S
        assert (await limiter.try_acquire("ann", cost=1), await limiter.try_acquire("ann")) == (True, False)

    asyncio.run(main())
    assert bench.given() == 1


def test_a_task_that_is_cancelled_leaves_its_slot_to_the_others(bench: Bench) -> None:
    limiter = bench.aio("10/s")

    async def main() -> float:
        begin = time.monotonic()
        await limiter.acquire()
        cancelled = [asyncio.ensure_future(limiter.acquire()) for _ in range(20)]
        await asyncio.sleep(0.02)
        last = asyncio.ensure_future(limiter.acquire())
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
        await last
        assert all(task.cancelled() for task in cancelled)
        return time.monotonic() - begin

    assert 0.1 <= asyncio.run(main()) <= 0.1 + NOISE_S
    assert bench.given() == 2


def test_it_is_a_context_manager_and_a_decorator(bench: Bench) -> None:
    limiter = bench.aio("100/s")

    @limiter
    async def add(one: int, two: int = 2) -> int:
        """Adds."""
        return one + two

    async def main() -> list[int]:
        async with limiter as entered:
            assert entered is limiter
        return [await add(number) for number in range(10)]

    begin = time.monotonic()
    assert asyncio.run(main()) == list(range(2, 12))
    assert time.monotonic() - begin >= 0.1
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    assert bench.given() == 11


def test_it_works_in_many_loops_one_after_the_other_and_at_once(bench: Bench) -> None:
    """The object is made outside any loop; five threads have one each, and share the bucket."""
    limiter = bench.aio("100/s")

    async def call() -> float:
        await asyncio.gather(*(limiter.acquire() for _ in range(5)))
        return time.monotonic()

    begin = time.monotonic()
    for _ in range(2):
        asyncio.run(call())
    with ThreadPoolExecutor(5) as threads:
        ends = list(threads.map(lambda _: asyncio.run(call()), range(5)))

    assert 0.34 <= max(ends) - begin <= 0.34 + 2 * NOISE_S
    assert bench.given() == 35


def test_threads_and_tasks_of_one_process_wait_in_one_lane(bench: Bench) -> None:
    limiter, aio = bench.limiter("50/s"), bench.aio("50/s")
    begin = time.monotonic()
    limiter.acquire()

    async def call() -> None:
        await asyncio.gather(*(aio.acquire() for _ in range(5)))

    with ThreadPoolExecutor(6) as threads:
        waiting = [threads.submit(limiter.acquire) for _ in range(5)]
        waiting.append(threads.submit(asyncio.run, call()))
        for each in waiting:
            each.result()

    assert 0.2 <= time.monotonic() - begin <= 0.2 + NOISE_S
    assert len(bench.waiting()) == 1, "one process waits"


def test_a_loop_that_ends_while_tasks_wait_harms_nobody(bench: Bench) -> None:
    limiter, other = bench.aio("5/s"), bench.limiter("5/s")

    async def main() -> None:
        await limiter.acquire()
        waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)

    asyncio.run(main())  # it cancels them
    begin = time.monotonic()
    other.acquire()

    assert time.monotonic() - begin <= 0.2 + NOISE_S
    assert bench.given() == 2
