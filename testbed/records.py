"""What the processes of a run have written down: one file for each, one line for each event."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Record(NamedTuple):
    """A line that a process of the cluster wrote: monotonic seconds, what happened, to which task, and where.

    Attributes:
        process: the id of the one that wrote it.
    """

    instant: float
    kind: str
    task: str
    task_id: str
    worker: str
    process: str


class Tail:
    """Reads what the processes of a cluster append to their records, each line once.

    Args:
        directory: of the files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: dict[Path, int] = {}

    def lines(self) -> list[Record]:
        """The records since the last call; those of one process are in order."""
        found = []
        for path in self._directory.iterdir():
            if path.stat().st_size == self._read.get(path):
                continue
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.decode().splitlines():
                instant, kind, task, task_id, worker = line.split(" ")
                found.append(Record(float(instant), kind, task, task_id, worker, path.stem))
        return found
