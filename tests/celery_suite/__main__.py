"""`make celery-suite`: Celery's own integration tests, on stock Celery and with a limit on every task.

It ends with 1 where a test ends otherwise with the limits, and with 2 where that could not be found out.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, Queue
from threading import Lock

import celery
import click

from .compare import Lane, Piece, compare, in_pieces
from .side import Side
from .source import CACHE, NoSourceError, fetch

BROKERS = ("redis", "rabbitmq")
#: What is worth most comes first. The others of `t/integration` have no worker in them.
FILES = (
    "test_tasks.py",
    "test_inspect.py",
    "test_group_chains.py",
    "test_redis_backend.py",
    "test_canvas.py",
    "test_worker.py",
    "test_serialization.py",
    "test_loader.py",
    "test_security.py",
    "test_connection_recovery.py",
)
#: So many run tests on each broker at a time, with their own servers. The tests wait more than they work.
LANES = 2
#: The last tests of a brief run begin so long after its start, in seconds.
BRIEF_S = 150.0
#: After so many tests that do differ nothing is learned from more; a brief run ends with the first.
ENOUGH = 5


@contextlib.contextmanager
def lanes(source: Path, brokers: tuple[str, ...], logs: Path) -> Iterator[list[Lane]]:
    """Stock and ours with their servers, so many times for each broker."""
    made = [
        Lane(broker, *(Side(source, broker, is_ours, logs) for is_ours in (False, True))) for broker in brokers * LANES
    ]
    sides = [side for lane in made for side in (lane.stock, lane.ours)]
    try:
        with ThreadPoolExecutor(len(sides)) as threads:
            list(threads.map(Side.start, sides))
        yield made
    finally:
        for side in sides:
            side.close()


def run(made: Sequence[Lane], tests: Sequence[str], until: float, enough: int) -> list[Piece]:
    """Run tests on each broker, and print how it goes.

    Args:
        made: where they run.
        tests: all of them.
        until: after this instant (monotonic seconds) no piece of them begins.
        enough: nor after so many differences.

    Returns:
        What ran.
    """
    done: list[Piece] = []
    lock = Lock()
    waiting: dict[str, Queue[list[str]]] = {lane.broker: Queue() for lane in made}
    for queue in waiting.values():
        for piece in in_pieces(tests):
            queue.put(piece)
    count = sum(queue.qsize() for queue in waiting.values())

    def close() -> None:
        for lane in made:
            lane.stock.close()
            lane.ours.close()

    def work(lane: Lane) -> None:
        with contextlib.suppress(Empty):
            while time.monotonic() < until and len(real(done)) < enough:
                piece = compare(lane, waiting[lane.broker].get_nowait(), click.echo)
                with lock:
                    if len(real(done)) >= enough:
                        return
                    done.append(piece)
                    click.echo(f"{len(done)} of {count}  {line(piece)}")
                    click.echo("".join(f"DIFFERS on {text}\n" for text in real([piece])), nl=False)
                    if len(real(done)) >= enough:
                        close()  # what the others do now is of no use

    with ThreadPoolExecutor(len(made)) as threads:
        work_of_all = [threads.submit(work, lane) for lane in made]
        try:
            for each in work_of_all:
                each.result()
        except BaseException:
            close()  # else the others would go on to their end
            raise
    return done


def real(pieces: Sequence[Piece]) -> list[str]:
    """The differences that were seen again, as text."""
    return [f"{piece.broker}: {found}" for piece in pieces for found in piece.differences if found.is_real]


def outcomes(pieces: Sequence[Piece]) -> str:
    """What has come out on stock, where it was compared."""
    counts = Counter(piece.stock.outcomes[test] for piece in pieces for test in piece.compared)
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))


def line(piece: Piece) -> str:
    """What to say of a piece."""
    name = piece.tests[0].partition("::")[0].rpartition("/")[2]
    return (
        f"{piece.broker}, {name}: {len(piece.suspects)} of {len(piece.tests)} differed; stock: {outcomes([piece])} "
        f"in {piece.stock.seconds:.0f} s; ours in {piece.ours.seconds:.0f} s, {piece.ours.received} limited tasks"
    )


def summary(pieces: Sequence[Piece], count: int) -> str:
    """What to say of a broker on which so many tests were to run."""
    received, released, slots = (
        sum(getattr(piece.ours, name) for piece in pieces) for name in ("received", "released", "slots")
    )
    return (
        f"{sum(len(piece.compared) for piece in pieces)} of {count} tests compared, {len(real(pieces))} differ; "
        f"stock: {outcomes(pieces)}; ours: {received} limited tasks received, {released} released, "
        f"at least {slots} slots given out"
    )


def end(signum: int, frame: object) -> None:
    """Servers and workers end with us, which a second signal must not cut short."""
    signal.signal(signum, signal.SIG_IGN)
    sys.exit(128 + signum)


@click.command()
@click.option("--brief", is_flag=True, help="What is worth most, in five minutes.")
@click.option("--broker", type=click.Choice(BROKERS), help="Not both of them.")
@click.option("-k", "expression", default="", help="The tests to run, as pytest takes it.")
def main(brief: bool, broker: str | None, expression: str) -> None:
    """Celery's own integration tests, on stock Celery and with a limit on every task."""
    signal.signal(signal.SIGTERM, end)
    try:
        source = fetch()
    except NoSourceError as reason:
        click.echo(reason, err=True)
        sys.exit(2)
    logs = CACHE / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    brokers = (broker,) if broker else BROKERS
    begin = time.monotonic()
    with lanes(source, brokers, logs) as made:
        tests, unreadable = made[0].stock.collect(FILES, expression)
        click.echo(f"Celery {celery.__version__}: {len(tests)} tests on {' and '.join(brokers)}; logs are in {logs}")
        if not expression:
            click.echo("".join(f"not run: {text}\n" for text in unreadable), nl=False)
        until = begin + BRIEF_S if brief else float("inf")
        pieces = run(made, tests, until, enough=1 if brief else ENOUGH)
    for piece in pieces:
        for text in piece.slower:
            click.echo(f"slower on {piece.broker}: {text}")
        for found in piece.differences:
            if not found.is_real:
                click.echo(f"not seen again on {piece.broker}: {found}")
    for text in real(pieces):
        click.echo(f"DIFFERS on {text}")
    is_proof = True
    for name in brokers:
        own = [piece for piece in pieces if piece.broker == name]
        click.echo(f"{name}: {summary(own, len(tests))}, {time.monotonic() - begin:.0f} s")
        is_proof = is_proof and all(piece.is_limited for piece in own) and any(piece.ours.slots for piece in own)
    if not is_proof:
        click.echo("The limits were not in force everywhere: that nothing differs shows nothing.")
    sys.exit(1 if real(pieces) else 0 if is_proof else 2)


if __name__ == "__main__":
    main()
