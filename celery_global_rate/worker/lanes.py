"""Which limits a request has to pass, by its task and its queue, and the lane where it waits for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import zip_longest
from operator import attrgetter
from typing import NamedTuple
from weakref import WeakValueDictionary

from ..broker.held_request import HeldRequest
from ..limits.bucket import OWN, Bucket
from ..limits.costs import Cost
from ..limits.in_force import LimitsInForce, Pauses
from ..limits.limit import Limits
from ..named_buckets import NamedBucket
from ..scheduling.lane import Lane


class Identity(NamedTuple):
    """What requests have in common that wait in one lane.

    Attributes:
        names: whose limits they pass.
        values: what they say of the key of each; empty where none has a key.
    """

    names: tuple[str, ...]
    values: tuple[str | None, ...]


class Lanes:
    """The lanes of a worker. Requests that pass the same limits wait in one.

    Those of a task have the task's own limit first, and then the named buckets for the task or its queue in the order
    of the configuration; of one with a key, that for the value. A limit that an operator has set for a task without one
    is its own as well.

    Args:
        named: the named buckets of the application.
        tasks: the names of all tasks of this worker.
        overrides: what operators have set.
        back_offs: the pauses that APIs have asked for.
        put_in_force: gives a lane its buckets and its floor.

    Attributes:
        named: as above.
        declared: by the names of tasks and named buckets: what each one declares.
    """

    def __init__(
        self,
        named: Mapping[str, NamedBucket],
        tasks: Callable[[], Iterable[str]],
        overrides: LimitsInForce,
        back_offs: Pauses,
        put_in_force: Callable[[Lane, tuple[Bucket, ...], int], None],
    ) -> None:
        self.named = named
        self.declared: dict[str, Limits] = {name: bucket.limits for name, bucket in named.items()}
        self._tasks = tasks
        self._overrides = overrides
        self._back_offs = back_offs
        self._put_in_force = put_in_force
        self._queues = frozenset(queue for bucket in named.values() for queue in bucket.queues)
        self._costly = frozenset(name for name, bucket in named.items() if bucket.cost is not None)
        self._keys = {name: bucket.key for name, bucket in named.items() if bucket.key}
        self._lanes: dict[Identity, Lane] = {}
        #: Those for values of a key, as long as something is held in them: there may be any number.
        self._lanes_of_values: WeakValueDictionary[Identity, Lane] = WeakValueDictionary()
        #: By task and queue: the named buckets for it.
        self._covering: dict[tuple[str, str | None], tuple[str, ...]] = {}
        #: The named buckets that lanes with other limits cross; None before the first lane.
        self._crossed: frozenset[str] | None = None

    def may_pass(self, task: str) -> bool:
        """Whether a named bucket may be for a task: by its name, or by the queue of a message."""
        return bool(self._queues) or any(bucket.covers(task, None) for bucket in self.named.values())

    def names(self, task: str, queue: str | None) -> tuple[str, ...]:
        """Whose limits a request of a task has to pass that came from a queue. From any thread."""
        key = task, queue if queue in self._queues else None
        covering = self._covering.get(key)
        if covering is None:
            covering = tuple(name for name, bucket in self.named.items() if bucket.covers(*key))
            self._covering[key] = covering
        return (task, *covering) if task in self.declared else covering

    def lane(self, task: str, queue: str | None, value: Callable[[str], str | None]) -> Lane:
        """Where such a request waits. Called in the loop.

        Args:
            task: its name.
            queue: that it came from.
            value: what the request says of a key, as a part of a Redis key; None if it says nothing.
        """
        names = self.names(task, queue)
        values = tuple(value(key) if (key := self._keys.get(name)) else None for name in names) if self._keys else ()
        identity = Identity(names, values)
        has_values = any(it is not None for it in values)
        lanes = self._lanes_of_values if has_values else self._lanes
        lane = lanes.get(identity)
        if lane is None:
            if self._crossed is None:
                self._crossed = self._find_crossed()
            lane = lanes[identity] = Lane(" + ".join(names), (), attrgetter("rank"))
            self._configure(identity, lane)
        return lane

    def declare(self, task: str, limits: Limits) -> bool:
        """A task has a limit of its own, or may be given one.

        Returns:
            Whether it had none so far: what is held of it may have to wait in another lane.
        """
        is_new = task not in self.declared
        self.declared[task] = limits
        changed = frozenset([task])
        if is_new and self._crossed is not None:
            before, self._crossed = self._crossed, self._find_crossed()
            changed |= before ^ self._crossed
        self._refresh(changed)
        return is_new

    def refresh(self, name: str) -> None:
        """Put in force what counts for a name now, wherever it does."""
        self._refresh(frozenset([name]))

    def heed(self, name: str, value: str | None) -> None:
        """The bucket for a value of a key backs off, or no longer: there may be any number of others."""
        for identity, lane in (*self._lanes.items(), *self._lanes_of_values.items()):
            if (name, value) in zip_longest(*identity):
                self._configure(identity, lane)

    def _refresh(self, names: frozenset[str]) -> None:
        for identity, lane in (*self._lanes.items(), *self._lanes_of_values.items()):
            if not names.isdisjoint(identity.names):
                self._configure(identity, lane)

    def _configure(self, identity: Identity, lane: Lane) -> None:
        buckets: list[Bucket] = []
        paid: list[tuple[int, int]] = []
        latest_floor_us = 0
        for place, (name, value) in enumerate(zip_longest(*identity)):
            limits, floor_us = self._overrides.in_force(name, self.declared[name])
            latest_floor_us = max(latest_floor_us, floor_us, self._back_offs.floor_us(name, value))
            windows = self.named[name].windows if name in self.named else (OWN,)
            buckets += (Bucket(name, *it, name in (self._crossed or ())).of(value) for it in zip(windows, limits))
            paid += [(place, limit.largest_cost) for limit in limits]
        if not self._costly.isdisjoint(identity.names):
            lane.cost_of = partial(_cost, tuple(paid))
        self._put_in_force(lane, tuple(buckets), latest_floor_us)

    def _find_crossed(self) -> frozenset[str]:
        """The named buckets that requests pass beside other names, or values of other keys: there are lanes without
        them as well. Those of limiters outside the workers have the named bucket alone, so one such lane suffices.

        A task's own limit is passed in several lanes only if its messages come from several queues.
        """
        if not self.named:
            return frozenset()
        queues = (None, *self._queues)
        beside_others: set[str] = set()
        keys: defaultdict[str, set[str]] = defaultdict(set)
        for names in {self.names(task, queue) for task in self._tasks() for queue in queues}:
            beside_others.update(names if len(names) > 1 else ())
            together = {self._keys[name] for name in names if name in self._keys}
            for name in names:
                keys[name] |= together
        return frozenset(name for name in self.named if name in beside_others or keys[name] - {self._keys.get(name)})


def _cost(paid: tuple[tuple[int, int], ...], request: HeldRequest) -> Cost:
    """What a request costs at each bucket of its lane.

    Args:
        paid: for each bucket the place of its name in the lane, and the most that one start can take of its limit.
        request: a limit that an operator has set since it was received may be too slow for what it costs.
    """
    costs = request.costs
    return tuple([min(costs[place], most) if costs else 1 for place, most in paid])
