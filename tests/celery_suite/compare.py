"""What differs between stock Celery and ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from .side import Run, Side

#: So often the tests up to one whose outcome differs run again, on both.
REPEATS = 2
#: So many tests run in a row before the servers are emptied and another worker begins.
PIECE = 20
#: More than twice as long as on stock, and by so many seconds, is reported.
SLOW_S = 5.0


@dataclass(frozen=True)
class Lane:
    """Two sides that run the same tests at the same time.

    Attributes:
        broker: `redis` or `rabbitmq`.
        stock: without limits.
        ours: with a limit on every task.
    """

    broker: str
    stock: Side
    ours: Side


@dataclass
class Difference:
    """A test that does not end with the limits as it ends without.

    Attributes:
        test: its name.
        stock: how it has ended on stock Celery, each time.
        ours: how it has ended with the limits, each time.
        reason: of the last bad outcome of ours, a line.
        log: what was printed then.
    """

    test: str
    stock: list[str]
    ours: list[str]
    reason: str
    log: str

    @property
    def is_real(self) -> bool:
        """Whether it is more than a test that ends now so, now otherwise. The first pass was only the suspicion.

        In the repeats ours has to end as stock has ended at some time, and to pass at some time if stock does.
        """
        again = self.ours[1:]
        return not set(again) <= set(self.stock) or ("passed" in self.stock and "passed" not in again)

    def __str__(self) -> str:
        outcomes = f"stock: {', '.join(self.stock)}; ours: {', '.join(self.ours)}"
        return f"{self.test}\n  {outcomes}\n  {self.reason}\n  {self.log}"


@dataclass
class Piece:
    """Tests in a row, on both sides.

    Attributes:
        broker: that they ran on.
        tests: that were to run.
        stock: what came out without limits.
        ours: what came out with a limit on every task.
        differences: found in it, real or not.
    """

    broker: str
    tests: Sequence[str]
    stock: Run
    ours: Run
    differences: list[Difference] = field(default_factory=list)

    @property
    def compared(self) -> list[str]:
        """The tests that ran on both sides."""
        return [test for test in self.tests if test in self.stock.outcomes and test in self.ours.outcomes]

    @property
    def suspects(self) -> list[str]:
        """The tests that did not end alike."""
        return [test for test in self.compared if self.stock.outcomes[test] != self.ours.outcomes[test]]

    @property
    def slower(self) -> list[str]:
        """The tests that took ours much longer, as text. They may: what a limit changes is when a task starts."""
        took_s = (
            (test, self.stock.durations_s.get(test, 0), self.ours.durations_s.get(test, 0)) for test in self.tests
        )
        return [
            f"{test}: {ours:.0f} s, stock {stock:.0f} s" for test, stock, ours in took_s if ours > 2 * stock + SLOW_S
        ]

    @property
    def is_limited(self) -> bool:
        """Whether the limits were in force: else that nothing differs shows nothing.

        Of what the workers received, some was revoked or has expired before it started, and some was killed with them.
        """
        return self.ours.released >= 0.8 * self.ours.received and bool(self.ours.slots or not self.ours.received)


def in_pieces(tests: Sequence[str]) -> list[list[str]]:
    """Tests of one file in a row, in pieces of about the same length."""
    pieces: list[list[str]] = []
    for name in dict.fromkeys(test.partition("::")[0] for test in tests):
        own = [test for test in tests if test.startswith(f"{name}::")]
        count = -(-len(own) // PIECE)
        pieces += [own[len(own) * index // count : len(own) * (index + 1) // count] for index in range(count)]
    return pieces


def both(lane: Lane, tests: Sequence[str]) -> Piece:
    """Run tests on both sides, at the same time: what the machine does meanwhile it does to both."""
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(side.run, tests) for side in (lane.stock, lane.ours)]
        return Piece(lane.broker, tests, runs[0].result(), runs[1].result())


def compare(lane: Lane, tests: Sequence[str], log: Callable[[str], object]) -> Piece:
    """Run tests on both sides, and again where an outcome differs.

    They run again with all that came before them, because a worker may have been hurt by that.
    """
    piece = both(lane, tests)
    if suspects := piece.suspects:
        again = tests[: tests.index(max(suspects, key=tests.index)) + 1]
        log(f"  {lane.broker}: {REPEATS} times more, with {len(again)} tests, because of {', '.join(suspects)}")
        pieces = [piece, *(both(lane, again) for _ in range(REPEATS))]
        piece.differences = list(_differences(suspects, pieces))
    return piece


def _differences(suspects: Sequence[str], pieces: Sequence[Piece]) -> Iterator[Difference]:
    for test in suspects:
        runs = [run for piece in pieces for run in (piece.ours, piece.stock) if run.reasons.get(test)]
        yield Difference(
            test,
            [piece.stock.outcomes.get(test, "not run") for piece in pieces],
            [piece.ours.outcomes.get(test, "not run") for piece in pieces],
            runs[0].reasons[test] if runs else "",
            str(runs[0].logs[test]) if runs else "",
        )
