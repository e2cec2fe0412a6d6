"""Many callers in several processes: the rate is reached, no window holds more, and many callers are few calls."""

from __future__ import annotations

import asyncio
import time

import pytest

from celery_global_rate.limits.limit import Limit
from testbed.callers import Callers, best_share
from testbed.scenarios import script_calls
from testbed.server import Redis
from testbed.windows import excess, used

from ..conftest import Figures
from .conftest import Bench

LIMIT = Limit(1000)
#: Left out at either end of a run, in seconds: the processes begin and end one after the other.
EDGE_S = 0.5


#: The share of the slots that has to be used.
LEAST = 0.99


@pytest.mark.parametrize("seconds", [4, pytest.param(30, marks=pytest.mark.long)])
@pytest.mark.parametrize(("processes", "threads", "tasks"), [(4, 50, 0), (1, 0, 200)])
def test_a_thousand_a_second(
    own_redis: Redis, figures: Figures, seconds: int, processes: int, threads: int, tasks: int
) -> None:
    client = own_redis.client()

    def run() -> float:
        with Callers(own_redis.url, "1000/s") as callers:
            callers.start(seconds, processes, threads, tasks)
            before = script_calls(client)
            begin = callers.go()
            calls = callers.finish()
        per_call = (script_calls(client) - before) / len(calls.returned)
        share = used(calls.returned, LIMIT.interval_s, begin + EDGE_S, begin + seconds - EDGE_S)
        slack_s = LIMIT.grace_s + calls.uncertainty_s
        releases = excess(calls.released, LIMIT.interval_s, 1, slack_s)
        returns = excess(calls.returned, LIMIT.interval_s, 1, slack_s + calls.delay_s)
        figures(
            f"{processes} processes, {threads or tasks} {'threads' if threads else 'tasks'} each, 1000/s for {seconds} "
            f"s: {share:.4f} of the slots used, worst window {releases:.2f} releases and {returns:.2f} returns against "
            f"the promise (R {1000 * calls.uncertainty_s:.2f} ms, J {1000 * calls.delay_s:.1f} ms), {per_call:.3f} "
            f"calls of scripts for each, {max(calls.cpu_s) / seconds:.2f} of a core per process"
        )
        assert share <= 1.005
        assert releases <= 0
        assert returns <= 0
        assert per_call <= 0.1
        return share

    assert best_share(run, LEAST, tries=3 if seconds < 10 else 1) >= LEAST


@pytest.mark.parametrize(("rate", "seconds"), [("200/s", 2.5), pytest.param("1000/s", 10, marks=pytest.mark.long)])
def test_one_thread_alone_reaches_the_limit(bench: Bench, figures: Figures, rate: str, seconds: float) -> None:
    """It calls again when it has its slot, so that nothing can be reserved for it ahead: each time it asks at once."""
    limiter = bench.limiter(rate)
    limit = Limit.parse(rate)
    assert limit is not None

    def run() -> float:
        limiter.acquire()
        begin = time.monotonic()
        instants: list[float] = []
        while not instants or instants[-1] < begin + seconds:
            limiter.acquire()
            instants.append(time.monotonic())
        share = used(instants, limit.interval_s, begin + 0.2, begin + seconds - 0.3)
        figures(f"one thread, {rate}: {share:.4f} of the slots used")
        assert share <= 1.005
        return share

    assert best_share(run, LEAST, tries=3 if seconds < 10 else 1) >= LEAST


@pytest.mark.parametrize(("count", "seconds"), [(10, 3), pytest.param(100, 12, marks=pytest.mark.long)])
def test_many_values_of_a_key(bench: Bench, figures: Figures, count: int, seconds: float) -> None:
    """Tenants at 10/s each, three tasks of each: all reach their limit."""
    limiter = bench.aio("10/s")

    async def call(tenant: int, end: float, instants: list[float]) -> None:
        while time.monotonic() < end:
            await limiter.acquire(key=tenant)
            instants.append(time.monotonic())

    async def main(found: dict[int, list[float]]) -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(*(call(tenant, end, instants) for tenant, instants in found.items() for _ in range(3)))

    def run() -> float:
        instants: dict[int, list[float]] = {tenant: [] for tenant in range(count)}
        begin, cpu_s = time.monotonic(), time.process_time()
        asyncio.run(main(instants))
        cpu_s = time.process_time() - cpu_s
        shares = [used(found, 0.1, begin + 0.5, begin + seconds - 0.5) for found in instants.values()]
        figures(
            f"{count} values of a key at 10/s each: {min(shares):.3f} to {max(shares):.3f} of the slots used, "
            f"{cpu_s / seconds:.2f} of a core"
        )
        return min(shares)

    assert best_share(run, LEAST, tries=3 if seconds < 10 else 1) >= LEAST
