"""Goes everywhere in a model, breadth first, so that the way to what is wrong is the shortest."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol


class Explored(Protocol):
    """A model: where it begins, all that may follow a state, and what tells one state from another.

    `setup.tasks` says how many starts a state's `judge.starts` is to reach, and `judge.wrong` what is not true.
    """

    @property
    def setup(self) -> Any: ...

    def starts(self) -> Iterable[Any]: ...

    def steps(self, state: Any) -> Iterable[Any]: ...

    def key(self, state: Any) -> Hashable: ...


@dataclass
class Exploration:
    """What was found.

    Attributes:
        states: how many there are.
        wrong: what is not true in one of them; empty where all is well.
        trace: the shortest way there, step by step.
        longest: ticks until all tasks are started, where nothing more goes wrong and all do at once what they may.
    """

    states: int
    wrong: str = ""
    trace: tuple[str, ...] = ()
    longest: int = 0

    def __str__(self) -> str:
        return "\n".join([f"{self.states} states; {self.wrong or 'nothing is wrong'}", *self.trace])


class Explorer:
    """All states that a model can reach."""

    def __init__(self, model: Explored) -> None:
        self._model = model
        self._numbers: dict[Hashable, int] = {}
        self._came: list[tuple[int, str]] = []
        self._is_over: list[bool] = []
        #: Per state the ones that follow where nothing goes wrong and nobody dawdles, and whether by time alone.
        self._prompt: list[tuple[bool, tuple[int, ...]]] = []

    def explore(self) -> Exploration:
        """Look for a state in which something is wrong, and then for one from which tasks are never started."""
        found = deque((state, self._number(state, -1, "")) for state in self._model.starts())
        todo: deque[Any] = deque(state for state, _ in found)
        setup = self._model.setup
        while todo:
            state = todo.popleft()
            steps: dict[str, list[int]] = {"prompt": [], "time": [], "choice": [], "event": []}
            me = len(self._prompt)
            is_over = state.judge.starts == setup.tasks
            for step in () if is_over else self._model.steps(state):
                known = len(self._came)
                number = self._number(step.state, me, step.what)
                if number != me:  # nothing that matters
                    steps[step.kind].append(number)
                if number == known:
                    if step.state.judge.wrong:
                        return Exploration(len(self._came), step.state.judge.wrong, self._trace(number))
                    todo.append(step.state)
            self._prompt.append((not steps["prompt"], tuple(steps["prompt"] or steps["time"])))
            self._is_over.append(is_over)
        return self._wait()

    def _number(self, state: Any, came: int, what: str) -> int:
        number = self._numbers.setdefault(self._model.key(state), len(self._came))
        if number == len(self._came):
            self._came.append((came, what))
        return number

    def _trace(self, number: int) -> tuple[str, ...]:
        trace = []
        while number >= 0:
            number, what = self._came[number]
            trace.append(what)
        return tuple(reversed(trace[:-1]))

    def _wait(self) -> Exploration:
        """Go back from the states in which all is started: a state from which all ways lead there is sure.

        It is sure when all that may follow it are. Those that never become sure can go in a circle, or stop.
        """
        before: list[list[int]] = [[] for _ in self._prompt]
        open_: list[int] = []
        for number, (_, follow) in enumerate(self._prompt):
            open_.append(len(follow))
            for after in follow:
                before[after].append(number)
        ticks: list[int] = [0 if is_over else -1 for is_over in self._is_over]
        sure = deque(number for number, is_over in enumerate(self._is_over) if is_over)
        while sure:
            number = sure.popleft()
            for earlier in before[number]:
                open_[earlier] -= 1
                if not open_[earlier] and ticks[earlier] < 0:
                    is_time, follow = self._prompt[earlier]
                    ticks[earlier] = is_time + max([ticks[after] for after in follow])
                    sure.append(earlier)
        states = len(self._came)
        stuck = [number for number, wait in enumerate(ticks) if wait < 0]
        if stuck:
            hopeless = sorted(set(stuck) - can_reach(before, [n for n, wait in enumerate(ticks) if wait >= 0]))
            return Exploration(states, "a held task is never started", self._trace((hopeless or stuck)[0]))
        return Exploration(states, longest=max(ticks))


def can_reach(before: list[list[int]], these: list[int]) -> set[int]:
    """All from which a way leads to one of these."""
    found, todo = set(these), list(these)
    while todo:
        more = [number for number in before[todo.pop()] if number not in found]
        found.update(more)
        todo += more
    return found
