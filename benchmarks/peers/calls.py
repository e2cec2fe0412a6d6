"""Libraries whose callers wait for their turn, without Celery: four processes that share 100/s."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from dataclasses import asdict, dataclass
from typing import Any

import redis

from testbed.server import Redis, root

from .environments import LIMITERS, Peer, python
from .run import RATE, fullest_second

PROCESSES = 4
#: Threads of each process, or tasks of asyncio, that wait at any time: the two loads.
LOADS = (1, 16)
WARM_UP_S = 2.0
MEASURED_S = 20.0
#: How long one turn may take to come after the end, in seconds.
LAST_S = 30.0
FOLDER = root() / "benchmarks" / "peers" / "limiters"


@dataclass(frozen=True)
class Figures:
    """What was seen.

    Attributes:
        title, package: of the library.
        callers: how many wait in each process at any time.
        share: turns of what the rate allows, over the watch.
        most: turns in the fullest second of the whole run.
        longest_s: the longest time without a turn in the watch.
        least: turns of the process that had the fewest, of a fair share.
        sent: writes to Redis for each turn, of one call or more.
        commands: what Redis runs for each turn, commands within scripts included.
        cpu_ms: of all processes, for each turn.
    """

    title: str
    package: str
    callers: int
    share: float
    most: int
    longest_s: float
    least: float
    sent: float
    commands: float
    cpu_ms: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(peer: Peer, callers: int, seconds: float = MEASURED_S) -> Figures:
    """Watch one of them.

    Args:
        peer: the library; its `app` is a module in `limiters`.
        callers: of each process.
        seconds: for how long.

    Raises:
        RuntimeError: a process has failed; the text has its last lines.
    """
    with contextlib.closing(Redis()) as server, contextlib.ExitStack() as stack:
        client = server.start().client()
        processes = [stack.enter_context(_started(peer, server, callers)) for _ in range(PROCESSES)]
        for process in processes:
            assert process.stdout
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"{peer.title}: {process.communicate()[1][-2000:]}")
        begin = time.monotonic() + 0.1
        counts_from = begin + WARM_UP_S
        until = counts_from + seconds
        for process in processes:
            assert process.stdin
            process.stdin.write(f"{begin} {until} {counts_from}\n")
            process.stdin.flush()
        time.sleep(max(0.0, counts_from - time.monotonic()))
        before = _calls(client)
        time.sleep(max(0.0, until - time.monotonic()))
        sent, commands = (after - count for after, count in zip(_calls(client), before))
        found = [_answer(peer, process) for process in processes]
    return figures(peer, callers, found, sent, commands, counts_from, until)


def _started(peer: Peer, server: Redis, callers: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(root()), "PEERS_LIMITER": f"{server.url}/0"}
    command = [python(peer), str(FOLDER / "caller.py"), peer.app, str(callers)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _calls(client: redis.Redis) -> tuple[int, int]:
    """How often Redis has read from the network so far, and the commands that it has run, but for those asked here."""
    stats: dict[str, Any] = client.info("everything")
    calls = {name: int(it["calls"]) for name, it in stats.items() if name.startswith("cmdstat_")}
    asked = calls.pop("cmdstat_info", 0)
    return stats["total_reads_processed"] - asked, sum(calls.values())


def _answer(peer: Peer, process: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        out, err = process.communicate(timeout=LAST_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise RuntimeError(f"{peer.title}: no turn within {LAST_S} s") from None
    if process.returncode:
        raise RuntimeError(f"{peer.title}: {err[-2000:]}")
    answer: dict[str, Any] = json.loads(out)
    return answer


def figures(
    peer: Peer, callers: int, found: list[dict[str, Any]], sent: int, commands: int, begin: float, end: float
) -> Figures:
    """What processes have noted between two moments.

    Args:
        peer: the library.
        callers: of each process.
        found: what each process says: its turns, and its CPU time.
        sent: calls to Redis meanwhile.
        commands: what came of them there.
        begin: monotonic seconds.
        end: likewise.
    """
    of_each = [[at for at in one["turns"] if begin <= at < end] for one in found]
    turns = sorted(at for one in of_each for at in one)
    count = max(1, len(turns))
    return Figures(
        title=peer.title,
        package=peer.package,
        callers=callers,
        share=len(turns) / (RATE * (end - begin)),
        most=fullest_second([at for one in found for at in one["turns"]]),
        longest_s=max(later - earlier for earlier, later in zip([begin, *turns], [*turns, end])),
        least=min(map(len, of_each)) * len(of_each) / count,
        sent=sent / count,
        commands=commands / count,
        cpu_ms=1000 * sum(one["cpu_s"] for one in found) / count,
    )


def run_all() -> list[dict[str, Any]]:
    """All of them, one after the other."""
    return [run(peer, callers).as_dict() for callers in LOADS for peer in LIMITERS]
