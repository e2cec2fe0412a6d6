"""What a run may lose to stalls of the machine: none of it by what the workers do themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from celery_global_rate.limits.limit import Limit
from testbed.stalls import Stalls

SPIN_S = 0.6
#: Says a line, and then works for as long as the CPU that it has lasts it.
SPIN = (
    f"import sys, time; sys.stdin.readline(); end = time.process_time() + {SPIN_S}\nwhile time.process_time() < end: 0"
)
LIMIT = Limit(10_000)


def spin(cpu: int) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, {cpu})
    return process


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not count waits")
@pytest.mark.parametrize("processes", [1, 4])
def test_who_waits_for_a_cpu_stalls_and_who_is_busy_does_not(processes: int) -> None:
    """Each of four on one CPU waits for three quarters of the time, in turns; one alone for none of it.

    This process and others may take the CPU from the one as well: half of its time is more than they do.
    """
    stalls, cpu = Stalls(), min(os.sched_getaffinity(0))
    spinning = [spin(cpu) for _ in range(processes)]
    begin = time.monotonic()
    try:
        for process in spinning:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        while any(process.poll() is None for process in spinning):
            stalls.look([spinning[0].pid])
            time.sleep(0.005)
    finally:
        for process in spinning:
            process.kill()
            process.wait()
            assert process.stdin
            process.stdin.close()
    stalled_s = sum(end - since for since, end in stalls.spans(0.001))
    took_s = time.monotonic() - begin

    assert (stalled_s > SPIN_S / 2) == (processes > 1), (stalled_s, took_s)


def test_a_stall_takes_what_is_reserved_and_its_last_cost() -> None:
    """At 100/s, D is 25 ms, and a slot can be used for 20. H is 0.1 s, and 10 units are as much."""
    stalls = Stalls()
    stalls.waits = {
        1: [(10.0, 10.03), (12.0, 12.2), (15.0, 15.019)],
        2: [(10.02, 10.05), (12.203, 12.21), (40.0, 41.0)],
    }

    assert stalls.spans(LIMIT.usable_s) == [(10.0, 10.05), (12.0, 12.2), (40.0, 41.0)]
    assert stalls.most(LIMIT, 9, 19, 0) == pytest.approx((0.2 + 0.01) / 10)
    assert stalls.most(LIMIT, 9, 19, 1, 10) == pytest.approx((0.2 + 0.1) / 10)
    assert stalls.most(LIMIT, 9, 19, 2, 10) == pytest.approx((0.2 + 0.1 + 0.1 + 0.1) / 10)
    assert stalls.most(LIMIT, 9, 19, 9, 10) == stalls.most(LIMIT, 9, 19, 2, 10)
    assert stalls.most(LIMIT, 12.5, 19, 9, 10) == stalls.most(LIMIT, 9, 11, 0, 10) == 0
