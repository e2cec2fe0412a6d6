"""Which limits a request passes, and where it waits for them, without a worker."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping

import pytest

from celery_global_rate.broker.held_request import Arrival, HeldRequest
from celery_global_rate.limits.bucket import OWN, Bucket
from celery_global_rate.limits.limit import Limit, Limits
from celery_global_rate.named_buckets import NamedBucket
from celery_global_rate.scheduling.lane import Lane
from celery_global_rate.worker.lanes import Lanes

ONE, TEN, HUNDRED = Limit(1_000_000), Limit(100_000), Limit(10_000)
API = NamedBucket("api", (TEN,), ("crm.*",), ("mail",))
DAILY = NamedBucket("daily", (HUNDRED, ONE), ("crm.sync",), ())
TASKS = ("crm.sync", "crm.push", "shop.pay")


def nothing(key: str) -> None:
    """A request that says nothing of any key."""


class Orders:
    """What operators have set."""

    def __init__(self) -> None:
        self.limits: dict[str, Limits] = {}
        self.floors: dict[str, int] = {}
        self.back_offs: dict[tuple[str, str | None], int] = {}

    def in_force(self, name: str, declared: Limits) -> tuple[Limits, int]:
        return self.limits.get(name, declared), self.floors.get(name, 0)

    def floor_us(self, name: str, value: str | None) -> int:
        return self.back_offs.get((name, value), 0)


class World:
    """The lanes of a worker whose tasks declare some limits."""

    def __init__(self, named: tuple[NamedBucket, ...] = (), declared: Mapping[str, Limits] | None = None) -> None:
        self.orders = Orders()
        self.floors: dict[str, int] = {}
        self.configured: list[tuple[int, int]] = []
        by_name = {bucket.name: bucket for bucket in named}
        self.lanes = Lanes(by_name, lambda: TASKS, self.orders, self.orders, self._put_in_force)
        for task, limits in (declared or {}).items():
            self.lanes.declare(task, limits)

    def _put_in_force(self, lane: Lane, buckets: tuple[Bucket, ...], floor_us: int) -> None:
        lane.bind(buckets)
        self.floors[lane.name] = floor_us
        self.configured.append((id(lane), floor_us))

    def passed(self, task: str, queue: str | None = None) -> list[tuple[str, str, Limit]]:
        """What a request of a task passes."""
        return [(bucket.name, bucket.window, bucket.limit) for bucket in self.lanes.lane(task, queue, nothing).buckets]


@pytest.mark.parametrize(
    ("task", "queue", "names"),
    [
        ("crm.push", None, ("api",)),
        ("crm.push", "celery", ("api",)),
        ("crm.sync", None, ("crm.sync", "api", "daily")),
        ("shop.pay", "mail", ("api",)),
        ("shop.pay", "celery", ()),
        ("celery.chord_unlock", "celery", ()),
        ("celery.chord_unlock", "mail", ("api",)),
    ],
)
def test_a_request_passes_its_own_limit_and_those_of_its_task_and_its_queue(
    task: str, queue: str | None, names: tuple[str, ...]
) -> None:
    assert World((API, DAILY), {"crm.sync": (ONE,)}).lanes.names(task, queue) == names


def test_the_limits_of_a_lane_stand_in_the_order_of_the_configuration() -> None:
    """And each has the window that its place by the emission interval gives it."""
    world = World((API, DAILY), {"crm.sync": (ONE,)})

    assert world.passed("crm.sync") == [
        ("crm.sync", OWN, ONE),
        ("api", "smooth", TEN),
        ("daily", "smooth", HUNDRED),
        ("daily", "smooth2", ONE),
    ]


def test_requests_with_the_same_limits_wait_in_one_lane() -> None:
    world = World((API,))

    assert world.lanes.lane("crm.sync", None, nothing) is world.lanes.lane("shop.pay", "mail", nothing)


def test_a_limit_is_crossed_if_requests_pass_it_in_more_than_one_lane() -> None:
    alone, crossed = World((API,)), World((API,), {"crm.sync": (ONE,)})

    assert [bucket.is_crossed for bucket in alone.lanes.lane("crm.push", None, nothing).buckets] == [False]
    assert [bucket.is_crossed for bucket in crossed.lanes.lane("crm.push", None, nothing).buckets] == [True]
    assert [bucket.is_crossed for bucket in crossed.lanes.lane("crm.sync", None, nothing).buckets] == [False, True]


def test_a_limit_that_a_task_is_given_later_gets_it_a_lane_of_its_own() -> None:
    """And the lane of the others learns that it is crossed."""
    world = World((API,))
    shared = world.lanes.lane("crm.sync", None, nothing)
    world.orders.limits["crm.sync"] = (ONE,)

    assert world.lanes.declare("crm.sync", ())
    assert world.passed("crm.sync") == [("crm.sync", OWN, ONE), ("api", "smooth", TEN)]
    assert world.lanes.lane("crm.push", None, nothing) is shared
    assert shared.buckets == (Bucket("api", "smooth", TEN, is_crossed=True),)


def test_a_new_rate_of_a_named_bucket_is_in_force_in_every_lane() -> None:
    world = World((API,), {"crm.sync": (ONE,)})
    lanes = [world.lanes.lane(task, None, nothing) for task in ("crm.sync", "crm.push")]
    world.orders.limits["api"] = (HUNDRED,)
    world.lanes.refresh("api")

    assert [lane.buckets[-1].limit for lane in lanes] == [HUNDRED, HUNDRED]


def test_a_lane_waits_for_the_latest_floor() -> None:
    world = World((API,), {"crm.sync": (ONE,)})
    world.orders.floors.update({"crm.sync": 5, "api": 7})
    lane = world.lanes.lane("crm.sync", None, nothing)

    assert world.floors[lane.name] == 7


def test_each_value_of_a_key_has_its_own_bucket_as_long_as_its_lane_is_needed() -> None:
    """Lanes of one tenant cross those of others at what all share, and a limiter outside at what is their own."""
    tenant = NamedBucket("tenant", (ONE,), ("crm.*",), (), "tenant_id")
    world = World((tenant, API))
    a, again, b = (world.lanes.lane("crm.push", None, {"tenant_id": value}.get) for value in ("a", "a", "b"))
    nobody = world.lanes.lane("crm.push", None, nothing)

    assert a is again
    assert [bucket.window for bucket in a.buckets] == ["smooth:a", "smooth"]
    assert [bucket.window for bucket in b.buckets] == ["smooth:b", "smooth"]
    assert [bucket.window for bucket in nobody.buckets] == ["smooth", "smooth"]
    assert [bucket.is_crossed for bucket in a.buckets] == [True, True]
    assert len(world.lanes._lanes_of_values) == 2
    world.orders.limits["tenant"] = (TEN,)
    world.lanes.refresh("tenant")
    assert {lane.buckets[0].limit for lane in (a, b, nobody)} == {TEN}

    del a, again, b
    gc.collect()

    assert len(world.lanes._lanes_of_values) == 0
    assert world.lanes.lane("crm.push", None, nothing) is nobody


def test_without_a_limit_any_more_everything_passes() -> None:
    world = World((API,))
    world.orders.limits["api"] = ()

    assert world.passed("crm.push") == []


def test_a_bucket_that_backs_off_has_a_floor_in_each_of_its_lanes_and_no_other_has() -> None:
    """Of those with a key, the one for that value; the later of it and an operator's pause."""
    tenants = NamedBucket("tenants", (ONE,), ("crm.*",), (), key="tenant_id")
    world = World((API, tenants), {"crm.sync": (ONE,)})
    before = world.lanes.lane("crm.push", None, {"tenant_id": "a"}.get)
    world.orders.floors["api"] = 5
    for name, value, floor_us in (("tenants", "a", 9), ("api", None, 7), ("crm.sync", None, 8)):
        world.orders.back_offs[name, value] = floor_us
        configured = len(world.configured)
        world.lanes.heed(name, value)
        assert len(world.configured) - configured == (name != "crm.sync"), "each lane that has it, once"

    assert world.configured[-2:] == [(id(before), 9), (id(before), 9)]
    other = world.lanes.lane("crm.push", None, {"tenant_id": "b"}.get)
    own = world.lanes.lane("crm.sync", None, nothing)
    assert world.configured[-2:] == [(id(other), 7), (id(own), 8)]
    world.orders.back_offs.clear()
    world.lanes.heed("tenants", "a")
    assert world.configured[-1] == (id(before), 5)


def test_a_thousand_limited_tasks_beside_named_buckets_are_declared_within_seconds() -> None:
    """As a worker does at its start and after each lost connection; the second time with a lane for each task.

    Each task's patterns are tried once per queue: 1000 x 11 x 5 tries of a microsecond. Once more for each task that
    is declared they would be 50 million.
    """
    named = [NamedBucket(f"b{n}", (ONE,), (f"app{n}.*",), (f"q{n}", f"r{n}")) for n in range(5)]
    tasks = [f"app{n % 5}.task{n}" for n in range(1000)]
    lanes = Lanes({it.name: it for it in named}, lambda: tasks, Orders(), Orders(), lambda lane, buckets, floor: None)
    begin = time.process_time()
    for task in tasks:
        lanes.declare(task, (ONE,))
    for task in tasks:
        lanes.lane(task, None, nothing)
    for task in tasks:
        lanes.declare(task, (ONE,))

    assert time.process_time() - begin < 3


def test_named_buckets_that_cross_are_known_where_no_task_has_a_limit_of_its_own() -> None:
    """Nothing is declared then, and no order has come: the first lane already counts among several."""
    world = World((DAILY, NamedBucket("all", (TEN,), ("crm.*",), ())))

    assert [bucket.is_crossed for bucket in world.lanes.lane("crm.push", None, nothing).buckets] == [True]


def test_a_request_costs_the_same_at_each_limit_of_a_name() -> None:
    """Also once an operator has given its task a limit of its own, or has lifted all of a named bucket."""
    tokens = NamedBucket("tokens", (HUNDRED, ONE), ("crm.*",), (), cost="tokens")
    world = World((API, tokens), {"crm.sync": (ONE,)})
    lane = world.lanes.lane("crm.sync", None, nothing)
    request = HeldRequest(None, Arrival(None, 0, 0.0), 0.0, costs=(1, 2, 30))

    assert lane.cost_of
    assert lane.cost_of(request) == (1, 2, 30, 30)
    world.orders.limits["tokens"] = ()
    world.lanes.refresh("tokens")
    assert lane.cost_of(request) == (1, 2)
    world.orders.limits.update({"tokens": (TEN, ONE), "crm.sync": ()})
    world.lanes.refresh("tokens")
    world.lanes.refresh("crm.sync")
    assert lane.cost_of(request) == (2, 30, 30)


def test_a_cost_is_no_larger_than_what_the_limit_in_force_can_count() -> None:
    """An operator has set 1/d, of which ten years have 3650 units. Instants beyond would not be exact any more."""
    tokens = NamedBucket("tokens", (HUNDRED, ONE), ("crm.*",), (), cost="tokens")
    world = World((tokens,))
    lane = world.lanes.lane("crm.sync", None, nothing)
    world.orders.limits["tokens"] = (HUNDRED, Limit(86_400_000_000))
    world.lanes.refresh("tokens")

    assert lane.cost_of
    assert lane.cost_of(HeldRequest(None, Arrival(None, 0, 0.0), 0.0, costs=(10**9,))) == (10**9, 3650)


def test_nobody_asks_what_requests_cost_in_a_lane_without_a_cost() -> None:
    tokens = NamedBucket("tokens", (HUNDRED,), ("crm.*",), (), cost=5)
    world = World((API, tokens))

    assert world.lanes.lane("shop.pay", "mail", nothing).cost_of is None
    assert world.lanes.lane("crm.push", None, nothing).cost_of
