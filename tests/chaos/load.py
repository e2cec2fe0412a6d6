"""What the workers of a run have to do, and which limits hold for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: How long tasks take, in seconds.
TASK_S = 0.02
#: Messages of the kind that is always waiting for the limit that is watched for its use.
BACKLOG = 1200
#: The header with what a message costs.
UNITS = "units"
#: And of the others: of all together fewer than a worker may hold, or some would hold nothing else in the end.
BESIDE, MAX_HELD = 30, 300


@dataclass(frozen=True)
class Named:
    """What an operator changes by one name: the limits of a task, or of a named bucket.

    Attributes:
        name: of the task or the bucket.
        rates: what may be set, a rate a second for each limit; the last is declared.
        bursts: of its limits.
        values: of its key, one state for each; none if it has no key.
        largest: the most units that a task takes of it.
    """

    name: str
    rates: Sequence[tuple[int, ...]]
    bursts: Sequence[int] = (1,)
    values: Sequence[str] = ()
    largest: int = 1

    @property
    def limits(self) -> list[tuple[str, int]]:
        """Its limits by name, and which of the rates each one has."""
        numbers = [f" ({number})" for number in range(1, len(self.bursts) + 1)] if len(self.bursts) > 1 else [""]
        values = [f" {value}" for value in self.values] or [""]
        return [(f"{self.name}{value}{text}", at) for value in values for at, text in enumerate(numbers)]


@dataclass(frozen=True)
class Kind:
    """Messages that have the same limits.

    Attributes:
        task: its name.
        names: whose limits they pass; of a key only the value in `value`.
        arguments: one after the other, again and again.
        queue: where they are sent.
        value: of the key of their limits.
        units: that one takes of each limit with a cost.
        backlog: how many there are that have not ended.
    """

    task: str
    names: Sequence[str]
    arguments: Sequence[Sequence[Any]] = ((TASK_S,),)
    queue: str = "celery"
    value: str = ""
    units: int = 1
    backlog: int = BESIDE


@dataclass(frozen=True)
class Load:
    """What the workers of a run have to do.

    Attributes:
        named: all that has limits.
        kinds: all that is sent.
        busy: the limit for which something always waits: nothing else keeps tasks from using it.
        rate: of the task that has its own limit, as it is declared.
        conf: settings of the workers.
        include: modules that they load.
        is_r_asked: whether R is what workers say it is, where that is more than docs/guarantees computes with.
    """

    named: Sequence[Named]
    kinds: Sequence[Kind]
    busy: str
    rate: str
    conf: Mapping[str, Any] = field(default_factory=dict)
    include: Sequence[str] = ()
    is_r_asked: bool = False

    @property
    def tasks(self) -> list[str]:
        return sorted({kind.task for kind in self.kinds})

    @property
    def queues(self) -> list[str]:
        return sorted({kind.queue for kind in self.kinds})

    def limits(self, kind: Kind) -> list[tuple[str, int]]:
        """The limits that a message of a kind passes, and how many units it takes of each."""
        mine = [named for named in self.named if named.name in kind.names]
        assert len(mine) == len(kind.names)
        return [
            (limit, min(kind.units, named.largest))
            for named in mine
            for limit, _ in named.limits
            if not named.values or f" {kind.value}" in limit
        ]


#: One task with a limit of its own.
TASK = Load(
    named=[Named("late", [(20,), (40,), (60,)])],
    kinds=[Kind("late", ["late"], backlog=BACKLOG)],
    busy="late",
    rate="60/s",
)

#: Takes 1 to 100 ms, and ends in every way that leaves its worker whole.
ANYTHING = [
    (0.001, "returns"),
    (0.05, "fails"),
    (0.02, "retries"),
    (0.1, "returns"),
    (0.02, "rejects"),
    (0.01, "retries_later"),
    (0.05, "requeues"),
]

#: Three tasks share a bucket; one of them has its own limit, one has a key, and some come from a queue with two limits.
#: Some cost several units of a limit.
#: So there are lanes of one limit to five, and each limit is passed by lanes that have others.
BUCKETS = Load(
    named=[
        Named("api.push", [(8,), (20,), (12,)]),
        Named("api", [(30,), (60,), (45,)]),
        Named("tenant", [(4,), (10,), (6,)], values=("a", "b")),
        Named("mail", [(30, 8), (20, 12), (25, 10)], bursts=(1, 4)),
        Named("bytes", [(20,), (60,), (40,)], largest=7),
    ],
    kinds=[
        Kind("api.fetch", ["api"], ANYTHING, backlog=BACKLOG),
        Kind("api.push", ["api.push", "api", "bytes"], ANYTHING, units=3),
        Kind("api.push", ["api.push", "api", "mail", "bytes"], ANYTHING, queue="mail", units=7),
        Kind("api.sync", ["api", "tenant"], ANYTHING, value="a"),
        Kind("api.sync", ["api", "tenant", "mail"], ANYTHING, queue="mail", value="a"),
        Kind("api.sync", ["api", "tenant"], ANYTHING, value="b"),
        Kind("notify", ["mail", "bytes"], ANYTHING, queue="mail"),
    ],
    busy="api",
    rate="12/s",
    conf={
        "global_rate_buckets": {
            "api": {"rate": "45/s", "tasks": ["api.*"]},
            "tenant": {"rate": "6/s", "tasks": ["api.sync"], "key": "headers.tenant"},
            "mail": {"rate": ["25/s", {"rate": "10/s", "burst": 4}], "queues": ["mail"]},
            "bytes": {"rate": "40/s", "tasks": ["api.push", "notify"], "cost": f"headers.{UNITS}"},
        },
        "global_rate_max_held": MAX_HELD,
        # a retry is published by the pool's process, which may find the broker away
        "task_publish_retry_policy": {"max_retries": 50, "interval_start": 0.1, "interval_step": 0},
    },
    include=["tests.apps.crossing"],
    is_r_asked=True,
)

LOADS = {"task": TASK, "buckets": BUCKETS}
