"""How much memory and how many file descriptors the main process of a worker has, over time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: The share of a run before an instant from which its footprint is read: the least there, since some of it comes and
#: goes (a result of megabytes, the pipes of a process that is being forked).
SPAN = 0.1
#: What a process may grow by from the middle of a run to its end, and beyond that for each task that it has started.
#: A held task weighs some kilobytes: a leak of one in ten is more than this. Allocators keep pages by the megabyte.
GROWTH_MB, GROWTH_PER_TASK_KB = 4.0, 0.2
#: Pools of connections open another one when several users meet; a process that is forked has its own pipes.
GROWTH_DESCRIPTORS = 4


@dataclass(frozen=True)
class Footprint:
    """Of a process, at an instant.

    Attributes:
        at: monotonic seconds.
        memory_mb: resident, in megabytes.
        descriptors: open files, sockets and pipes.
    """

    at: float
    memory_mb: float
    descriptors: int

    @classmethod
    def read(cls, pid: int, at: float) -> Footprint:
        """Look at a process, on systems with /proc."""
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return cls(at, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir(f"/proc/{pid}/fd")))


def least(footprints: Sequence[Footprint], until: float, span_s: float) -> tuple[float, int]:
    """The least memory (megabytes) and the fewest descriptors in the time before an instant."""
    near = [it for it in footprints if until - span_s <= it.at <= until]
    return min(it.memory_mb for it in near), min(it.descriptors for it in near)


def is_flat(middle: tuple[float, int], end: tuple[float, int], tasks: int) -> bool:
    """Whether a process has grown by no more than allocators do, and opened nothing that it did not close.

    Args:
        middle, end: its least footprints, as `least` returns them.
        tasks: that it has started from the one to the other.
    """
    is_small = end[0] <= middle[0] + GROWTH_MB + tasks * GROWTH_PER_TASK_KB / 1024
    return is_small and end[1] <= middle[1] + GROWTH_DESCRIPTORS
