"""Forks, the end of a process, and how much a process with many callers takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from testbed.meanwhile import wait
from testbed.server import Redis, root

from ..conftest import Figures
from .conftest import Bench
from .test_blocking import NOISE_S, took_s

#: How long the end of an interpreter may take, in seconds, on a busy machine.
ENDS_S = 2.0


def in_child(call: Any) -> int:
    """Run something in a child of this process that is forked; its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(10)  # or it would hang unseen
            call()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_has_its_own_hub_and_the_parent_keeps_its_own(bench: Bench) -> None:
    """The limiter was used before the fork, and is used on both sides of it; slots are shared."""
    limiter = bench.limiter("50/s")
    begin = time.monotonic()
    limiter.acquire()

    def call() -> None:
        for _ in range(5):
            limiter.acquire()

    assert in_child(call) == 0
    call()

    assert 0.2 <= time.monotonic() - begin <= 0.2 + 2 * NOISE_S
    assert bench.given() == 11


def test_a_child_that_is_forked_while_others_wait(bench: Bench) -> None:
    limiter = bench.limiter("20/s")
    limiter.acquire()
    with ThreadPoolExecutor(10) as threads:
        waiting = [threads.submit(limiter.acquire) for _ in range(10)]
        codes = [in_child(limiter.acquire) for _ in range(3)]
        for each in waiting:
            each.result(timeout=5)

    assert codes == [0, 0, 0]
    assert bench.given() == 14


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_share_the_bucket(bench: Bench, method: str) -> None:
    limiter = bench.limiter("1/m")
    limiter.acquire()
    with get_context(method).Pool(2) as pool:
        found = pool.starmap(try_in_child, [(bench.url, bench.prefix)] * 4)

    assert found == [False] * 4
    assert bench.given() == 1


def try_in_child(url: str, prefix: str) -> bool:
    from celery_global_rate import RateLimiter

    return RateLimiter(url, "crm", "1/m", prefix=prefix).try_acquire()


PROGRAM = """
import sys, threading, time
from celery_global_rate import RateLimiter
url, prefix, rate, daemon = sys.argv[1:]
limiter = RateLimiter(url, "crm", rate, prefix=prefix)
limiter.acquire()
def call():
    limiter.acquire()
    print("went on", flush=True)
for _ in range(3):
    threading.Thread(target=call, daemon=bool(daemon)).start()
time.sleep(0.1)
print("ends", flush=True)
"""


def end_of(bench: Bench, rate: str, daemon: str, program: str = PROGRAM) -> tuple[list[str], float]:
    """What a program prints whose main thread ends while three others wait, and how long its end takes in seconds."""
    command = [sys.executable, "-c", program, bench.url, bench.prefix, rate, daemon]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root())
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line == "ends\n":
            begin = time.monotonic()
    assert process.wait(30) == 0, lines
    return lines, time.monotonic() - begin


def test_the_interpreter_ends_while_daemon_threads_wait(bench: Bench) -> None:
    """They would wait for a minute and more. It gives back what it has reserved, and is no longer counted."""
    lines, seconds = end_of(bench, "1/m", "daemon")

    assert lines == ["ends"]
    assert seconds < ENDS_S
    assert (bench.given(), bench.members()) == (1, 0)


def test_threads_that_are_no_daemons_have_their_slots_first(bench: Bench) -> None:
    lines, seconds = end_of(bench, "5/s", "")

    assert lines == ["ends", *["went on"] * 3]
    assert 0.4 <= seconds < 0.6 + ENDS_S
    assert (bench.given(), bench.members()) == (4, 0)


def test_the_interpreter_ends_while_tasks_wait(bench: Bench) -> None:
    program = """
import asyncio, sys
from celery_global_rate import AsyncRateLimiter
url, prefix, rate, _ = sys.argv[1:]
limiter = AsyncRateLimiter(url, "crm", rate, prefix=prefix)
async def main():
    await limiter.acquire()
    waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(3)]
    await asyncio.sleep(0.2)
    print("ends", flush=True)
asyncio.run(main())
"""
    lines, seconds = end_of(bench, "1/m", "", program)

    assert lines == ["ends"]
    assert seconds < ENDS_S
    assert (bench.given(), bench.members()) == (1, 0)


def test_a_key_press_ends_the_wait_of_the_main_thread(bench: Bench) -> None:
    program = """
import sys
from celery_global_rate import RateLimiter
limiter = RateLimiter(sys.argv[1], "crm", "1/m", prefix=sys.argv[2])
limiter.acquire()
print("waits", flush=True)
limiter.acquire()
"""
    command = [sys.executable, "-c", program, bench.url, bench.prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert took_s(process.wait) < ENDS_S
        assert "KeyboardInterrupt" in process.stderr.read()

    assert bench.given() == 1


def test_it_is_counted_while_somebody_calls_and_no_longer(own_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle process sends nothing, and does not shrink the share of the workers; the next call counts it again."""
    monkeypatch.setattr("celery_global_rate.client.engine.ACTIVE_S", 0.5)
    bench = Bench(own_redis, 0)
    limiter = bench.limiter("100/s")
    limiter.try_acquire()
    wait(lambda: bench.members() == 1, 2)
    wait(lambda: bench.members() == 0, 2)
    commands = bench.client.info("stats")["total_commands_processed"]
    time.sleep(1.5)
    sent = bench.client.info("stats")["total_commands_processed"] - commands

    limiter.acquire()
    wait(lambda: bench.members() == 1, 2)
    assert sent <= 1, "what this test asks itself"


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_many_waiters(bench: Bench, figures: Figures, count: int) -> None:
    """In tasks of one loop, at 1/m: what each takes of memory, and what all of them take of a core while they wait."""
    program = f"""
import asyncio, resource, sys, time
from celery_global_rate import AcquireTimeout, AsyncRateLimiter
limiter = AsyncRateLimiter(sys.argv[1], "crm", "1/m", prefix=sys.argv[2])
def memory():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1024
async def nothing():
    await asyncio.Event().wait()
async def main():
    await limiter.acquire()
    plain = memory()
    others = [asyncio.ensure_future(nothing()) for _ in range({count})]
    await asyncio.sleep(0.5)
    before = memory()
    waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range({count})]
    await asyncio.sleep(1)
    after, begin = memory(), time.process_time()
    await asyncio.sleep(3)
    cpu = (time.process_time() - begin) / 3
    begin = time.monotonic()
    late = [asyncio.ensure_future(limiter.acquire(0.5)) for _ in range({count})]
    refused = sum(isinstance(it, AcquireTimeout) for it in await asyncio.gather(*late, return_exceptions=True))
    took = time.monotonic() - begin
    begin = time.monotonic()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    print((after - before) / {count}, (before - plain) / {count}, cpu, refused, took, time.monotonic() - begin)
asyncio.run(main())
"""
    command = [sys.executable, "-c", program, bench.url, bench.prefix]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=root(), check=True)
    each_kb, plain_kb, cpu, refused, took, cancelled_s = map(float, done.stdout.split())
    figures(
        f"{count} waiters: {each_kb:.2f} KiB each ({plain_kb:.2f} KiB for a task that waits for something else), "
        f"{100 * cpu:.1f} % of a core while they wait; as many refused at once in {took:.2f} s, cancelled in "
        f"{cancelled_s:.2f} s"
    )

    assert refused == count
    assert each_kb <= plain_kb + 2
    assert cpu <= 0.05
    assert bench.given() == 1
