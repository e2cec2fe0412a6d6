"""Many callers in several processes: the rate is reached, no window holds more, and many callers are few calls."""

from __future__ import annotations

import asyncio
import time

import pytest

from celery_global_rate.limits.limit import Limit
from testbed.callers import Callers
from testbed.scenarios import script_calls
from testbed.server import Redis
from testbed.windows import excess, used

from ..conftest import Figures
from .conftest import Bench

LIMIT = Limit(1000)
#: Left out at either end of a run, in seconds: the processes begin and end one after the other.
EDGE_S = 0.5


@pytest.mark.parametrize("seconds", [4, pytest.param(30, marks=pytest.mark.long)])
@pytest.mark.parametrize(("processes", "threads", "tasks"), [(4, 50, 0), (1, 0, 200)])
def test_a_thousand_a_second(
    own_redis: Redis, figures: Figures, seconds: int, processes: int, threads: int, tasks: int
) -> None:
    client = own_redis.client()
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
        f"{processes} processes, {threads or tasks} {'threads' if threads else 'tasks'} each, 1000/s for {seconds} s: "
        f"{share:.4f} of the slots used, worst window {releases:.2f} releases and {returns:.2f} returns against the "
        f"promise (R {1000 * calls.uncertainty_s:.2f} ms, J {1000 * calls.delay_s:.1f} ms), {per_call:.3f} calls of "
        f"scripts for each, {max(calls.cpu_s) / seconds:.2f} of a core per process"
    )

    assert 0.99 <= share <= 1.005
    assert releases <= 0
    assert returns <= 0
    assert per_call <= 0.1


@pytest.mark.parametrize(("rate", "least"), [("200/s", 0.99), ("1000/s", 0.95)])
def test_one_thread_alone_reaches_the_limit(bench: Bench, figures: Figures, rate: str, least: float) -> None:
    """It calls again when it has its slot, so that nothing can be reserved for it ahead: each time it asks at once."""
    limiter = bench.limiter(rate)
    limit = Limit.parse(rate)
    assert limit is not None
    limiter.acquire()
    begin = time.monotonic()
    instants: list[float] = []
    while not instants or instants[-1] < begin + 2.5:
        limiter.acquire()
        instants.append(time.monotonic())
    share = used(instants, limit.interval_s, begin + 0.2, begin + 2.2)
    figures(f"one thread, {rate}: {share:.4f} of the slots used")

    assert least <= share <= 1.005


def test_many_values_of_a_key(bench: Bench, figures: Figures) -> None:
    """A hundred tenants at 10/s each, three tasks of each: all reach their limit."""
    limiter = bench.aio("10/s")
    instants: dict[int, list[float]] = {tenant: [] for tenant in range(100)}

    async def call(tenant: int, end: float) -> None:
        while time.monotonic() < end:
            await limiter.acquire(key=tenant)
            instants[tenant].append(time.monotonic())

    async def main() -> None:
        end = time.monotonic() + 3
        await asyncio.gather(*(call(tenant, end) for tenant in range(100) for _ in range(3)))

    begin, cpu_s = time.monotonic(), time.process_time()
    asyncio.run(main())
    cpu_s = time.process_time() - cpu_s
    shares = [used(found, 0.1, begin + 0.5, begin + 2.5) for found in instants.values()]
    figures(
        f"100 values of a key at 10/s each: {min(shares):.3f} to {max(shares):.3f} of the slots used, "
        f"{cpu_s / 3:.2f} of a core"
    )

    assert sum(shares) / 100 >= 0.99
    assert min(shares) >= 0.94
