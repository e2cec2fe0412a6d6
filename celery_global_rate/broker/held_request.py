"""A request that is held, with what was known when its message was received."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Arrival(NamedTuple):
    """How a message was received.

    Attributes:
        queue_name: the queue it came from; None if that is not known.
        rank: where its request stands among others of its name; the lowest starts first.
        received: monotonic seconds.
    """

    queue_name: str | None
    rank: int
    received: float


@dataclass(eq=False)
class HeldRequest:
    """A request that waits for its slot.

    Attributes:
        request: Celery's.
        arrival: of its message.
        held_since: epoch seconds; later than its arrival for a task with an ETA.
        costs: how many units it takes of each limit of each name whose limits it passes, in the order of its lane's;
            None if it takes one of each.
        error: why it cannot start, whatever slots there are; it fails with this.
    """

    request: Any
    arrival: Arrival
    held_since: float
    costs: tuple[int, ...] | None = None
    error: Exception | None = None

    @property
    def id(self) -> str:
        """The id of its task."""
        return self.request.id  # type: ignore[no-any-return]

    @property
    def task_name(self) -> str:
        """The name of its task; the request's own may be a shadow."""
        return self.request.task.name  # type: ignore[no-any-return]

    @property
    def message(self) -> Any:
        """kombu's message, which is not acknowledged."""
        return self.request.message

    @property
    def queue_name(self) -> str | None:
        """The queue that it came from."""
        return self.arrival.queue_name

    @property
    def rank(self) -> int:
        """Where it stands among others of its name; the lowest starts first."""
        return self.arrival.rank

    @property
    def received(self) -> float:
        """When its message was received, in monotonic seconds."""
        return self.arrival.received
