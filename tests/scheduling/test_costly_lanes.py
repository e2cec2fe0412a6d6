"""Tasks that cost several units: real schedulers and scripts, in virtual time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
import redis

from celery_global_rate.limits.bucket import Bucket
from celery_global_rate.limits.costs import Cost
from celery_global_rate.limits.timing import HORIZON_S
from celery_global_rate.scheduling.lane import Lane
from testbed.windows import excess, since, used

from ..conftest import Figures
from .simulation import Worker, fill
from .test_crossing_lanes import WARM_UP_S, limit_of, of_all, real_world


class Costly:
    """Workers whose lanes hold requests of several costs.

    Args:
        client: of a real server.
        workers: how many.
        run_s: how long a task runs, in seconds.
        processes: of each worker.

    Attributes:
        world: as of all workers.
        workers: as above.
        chance: draws what else is random.
    """

    def __init__(self, client: redis.Redis, workers: int, run_s: float, processes: int = 8) -> None:
        self.world = real_world(client, seed=workers)
        self.chance = chance = random.Random(workers)
        self._costs: dict[int, Cost] = {}
        self._buckets: dict[int, tuple[Bucket, ...]] = {}
        self.workers = [
            Worker(
                self.world,
                f"w{number}",
                processes,
                run_time=lambda: run_s * chance.uniform(0.75, 1.25),
                latency=lambda: chance.uniform(0.0001, 0.0004),
                lateness=lambda: chance.uniform(0, 0.015) if chance.random() < 0.1 else chance.uniform(0, 0.0016),
            )
            for number in range(workers)
        ]

    def hold(self, worker: Worker, buckets: tuple[Bucket, ...], costs: Sequence[Cost]) -> list[int]:
        """Hold requests of these costs in a lane of their own; their numbers."""
        first = len(self._costs)
        requests = range(first, first + len(costs))
        self._costs.update(zip(requests, costs))
        self._buckets.update(dict.fromkeys(requests, buckets))
        fill(worker, Lane(f"t{first}", buckets, cost_of=self._costs.__getitem__), requests)
        return list(requests)

    def small(self, count: int, *others: int) -> list[Cost]:
        """Costs of 1 to 10 of a limit, and these of the limits behind it."""
        return [(self.chance.randint(1, 10), *others) for _ in range(count)]

    @property
    def releases(self) -> list[tuple[float, int]]:
        """Instants and requests, in order."""
        return sorted(release for worker in self.workers for release in worker.releases)

    def units(self, bucket: Bucket) -> list[float]:
        """The instant of each unit of a limit."""
        return [
            instant
            for instant, request in self.releases
            for it, units in zip(self._buckets[request], self._costs[request])
            for _ in range(units)
            if it == bucket
        ]

    def used(self, bucket: Bucket) -> float:
        """The share of a limit's units that were used, from start to start.

        Between two starts, the units of the second are paid for. So those of all but the first belong to the time
        between them.
        """
        units = since(self.units(bucket), WARM_UP_S)
        return (len(units) - units.count(units[0])) * bucket.limit.interval_s / (units[-1] - units[0])

    def excess(self, bucket: Bucket, largest: int) -> float:
        """By how many units the fullest window is beyond ``max(b, c) + (w + D + R) / T``."""
        limit, uncertainty_s = bucket.limit, max(worker.clock.widest_s for worker in self.workers)
        burst = max(limit.burst, largest)
        return excess(self.units(bucket), limit.interval_s, burst, limit.grace_s + uncertainty_s)


SHORT = [(1, 1, 0.02), (4, 20, 0.02)]
CELLS = [
    pytest.param(*cell, marks=() if cell in SHORT else pytest.mark.long)
    for cell in itertools.product((1, 4), (1, 5, 20), (0.001, 0.02, 0.2))
]


@pytest.mark.parametrize(("workers", "burst", "run_s"), CELLS)
def test_costs_at_random_use_what_the_limit_allows(
    redis_client: redis.Redis, figures: Figures, workers: int, burst: int, run_s: float
) -> None:
    """1 to 10 units each at 100 units a second, 18 starts a second, and a backlog in each worker."""
    costly, seconds = Costly(redis_client, workers, run_s), 12.0
    bucket = of_all("api", limit_of(100, burst))
    for worker in costly.workers:
        costly.hold(worker, (bucket,), costly.small(300))
    costly.world.run(seconds)
    share = costly.used(bucket)
    over = costly.excess(bucket, 10)
    calls = costly.world.calls / len(costly.releases)
    figures(
        f"{workers} workers, burst {burst}, {run_s} s: {share:.4f} used, worst {over:.2f}, {calls:.2f} calls a start"
    )

    assert over <= 0
    assert 0.99 <= share <= 1.005 + burst / 100 / (seconds - WARM_UP_S)


@pytest.mark.parametrize(
    ("stalled", "stall_s", "largest"),
    [
        (2, 0.01, 10),
        (1, 0.1, 1),
        (1, 0.1, 10),
        (2, 0.3, 10),
        *(
            pytest.param(stalled, stall_s, largest, marks=pytest.mark.long)
            for stalled, stall_s, largest in itertools.product((1, 2), (0.03, 0.06, 0.15, 1.0), (1, 10))
        ),
    ],
)
def test_a_stall_takes_what_was_reserved_and_what_nobody_could(
    redis_client: redis.Redis, figures: Figures, stalled: int, stall_s: float, largest: int
) -> None:
    """One of two workers stands still every 2 s, or both do, at 100 units a second with a backlog in each.

    Slots in hand have their first units up to H ahead, so that takes ``H/T + c`` units at the most; ``max(s, H)/T + c``
    if nobody reserves others meanwhile; and none if slots outlast it. Two units are for where in a watch a start falls.
    """
    costly, seconds = Costly(redis_client, 2, 0.02), 100.0
    stalls: list[float] = []
    bucket = of_all("api", limit_of(100))
    for worker in costly.workers:
        costly.hold(worker, (bucket,), [(costly.chance.randint(1, largest),) for _ in range(18000 // (largest + 1))])
    while (at := WARM_UP_S + 2.15 * len(stalls)) < seconds - 3:
        costly.world.run(at := at + costly.chance.uniform(0, 0.1))
        for worker in costly.chance.sample(costly.workers, stalled):
            worker.stop(stall_s)
        stalls.append(at)
    costly.world.run(seconds)
    units = costly.units(bucket)
    lost = []
    for at in stalls:
        within = since(units, max(it for it in units if it < at), at + 2)
        paid_for = len(within) - within.count(within[0])
        lost.append((within[-1] - within[0]) / bucket.limit.interval_s - paid_for)
    nobody_s = stall_s if stalled == len(costly.workers) else 0.0
    most = max(nobody_s, HORIZON_S) / bucket.limit.interval_s + largest if stall_s > bucket.limit.usable_s else 0.0
    over, mean = costly.excess(bucket, largest), sum(lost) / len(lost)
    figures(
        f"{stalled} of 2 workers stalled for {1000 * stall_s:.0f} ms, costs up to {largest}: {mean:.1f} units lost, "
        f"{max(lost):.1f} at the most, bound {most:.0f}; worst window {over:.2f}"
    )

    assert over <= 0
    assert max(lost) <= most + 2
    assert nobody_s < HORIZON_S or mean >= nobody_s / bucket.limit.interval_s - largest


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.long)])
def test_a_large_cost_runs_in_its_turn(redis_client: redis.Redis, figures: Figures, workers: int) -> None:
    """500 units at 100/s among costs of 1 to 10, with a backlog in every worker.

    It is granted when one of 10 would be: its worker comes back within the horizon, each time that the others have had
    10 units each. Then it is paid for within 5 s, while nobody else gets units of that limit. Ten turns are enough.
    """
    costly, seconds = Costly(redis_client, workers, 0.02), 16.0
    tokens = of_all("tokens", limit_of(100))
    for worker in costly.workers[1:]:
        costly.hold(worker, (tokens,), costly.small(300))
    queue = costly.hold(costly.workers[0], (tokens,), [*costly.small(10), (500,), *costly.small(200)])
    costly.world.run(seconds)
    at = {request: instant for instant, request in costly.releases}
    waited_s = at[queue[10]] - at[queue[9]]
    units, share = since(costly.units(tokens), WARM_UP_S), costly.used(tokens)
    pause_s = max(later - earlier for earlier, later in zip(units, units[1:]))
    over = costly.excess(tokens, 500)
    figures(
        f"{workers} workers: the large one {waited_s:.2f} s after the one before it, the others' longest pause "
        f"{pause_s:.2f} s, {share:.4f} used, worst window {over:.2f}"
    )

    assert over <= 0
    assert 5.0 - 0.1 <= waited_s <= 5.0 + 10 * 0.1 * workers
    assert 5.0 <= pause_s <= 5.1
    assert 0.99 <= share <= 1.005


@pytest.mark.parametrize("workers", [1, 2, pytest.param(4, marks=pytest.mark.long)])
def test_a_large_cost_stops_nobody_at_other_limits(redis_client: redis.Redis, figures: Figures, workers: int) -> None:
    """The same, while each start also takes one of 20/s; and a lane for which that is all.

    The start lies 5 s ahead in both limits. Of the second, the slots up to there are free for that lane.
    """
    costly, seconds = Costly(redis_client, workers, 0.02), 16.0
    tokens, requests = of_all("tokens", limit_of(100)), of_all("requests", limit_of(20))
    for worker in costly.workers:
        costly.hold(worker, (tokens, requests), [*costly.small(10, 1), (500, 1), *costly.small(200, 1)])
    costly.hold(costly.workers[-1], (requests,), [(1,)] * 600)
    costly.world.run(seconds)
    share = used(costly.units(requests), requests.limit.interval_s, WARM_UP_S, seconds - WARM_UP_S)
    over = costly.excess(tokens, 500), costly.excess(requests, 1)
    figures(f"{workers} workers: {share:.4f} of the other limit used, worst windows {over}")

    assert max(over) <= 0
    assert 0.985 <= share <= 1.005


def test_tokens_and_requests_of_one_api(redis_client: redis.Redis, figures: Figures) -> None:
    """600 requests a minute and 90,000 tokens a minute: of 20 to 40 tokens a request, requests bind; of 300, tokens."""
    shares = []
    for tokens_each in (30, 300):
        redis_client.flushdb()
        costly = Costly(redis_client, 4, 0.02)
        requests, tokens = of_all("requests", limit_of(10)), of_all("tokens", limit_of(1500))
        for worker in costly.workers:
            costs = [(1, costly.chance.randint(tokens_each * 2 // 3, tokens_each * 4 // 3)) for _ in range(200)]
            costly.hold(worker, (requests, tokens), costs)
        costly.world.run(20)
        of_requests, of_tokens = costly.used(requests), costly.used(tokens)
        over = costly.excess(requests, 1), costly.excess(tokens, 400)
        figures(f"{tokens_each} tokens a request: {of_requests:.4f} and {of_tokens:.4f} used, worst windows {over}")
        shares.append((of_requests, of_tokens))
        assert max(over) <= 0

    assert shares[0][0] >= 0.97
    assert shares[1][1] >= 0.97


def test_a_slot_of_a_revoked_request_goes_back_if_the_next_one_costs_less(redis_client: redis.Redis) -> None:
    """The next one does not wait for what the revoked one would have cost, once the lane has been looked at."""
    costly = Costly(redis_client, 1, 0.02)
    (worker,), bucket = costly.workers, of_all("api", limit_of(100))
    first, large, small, last = costly.hold(worker, (bucket,), [(1,), (500,), (2,), (1,)])
    costly.world.run(0.5)
    worker.revoked.add(large)
    (lane,) = worker.scheduler.busy
    worker.scheduler.configure(lane, lane.buckets, floor_us=1)  # whatever makes it look
    costly.world.run(1.0)

    assert [request for _, request in worker.releases] == [first, small, last]


def test_no_request_starts_in_the_slot_of_a_smaller_one(redis_client: redis.Redis) -> None:
    """The slot of 9 units is in hand, 90 ms ahead, when its request is revoked. Behind it is one of 40, so of 0.4 s."""
    costly = Costly(redis_client, 1, 0.02)
    (worker,), bucket = costly.workers, of_all("api", limit_of(100))
    first, revoked, large = costly.hold(worker, (bucket,), [(1,), (9,), (40,)])
    costly.world.run(0.05)
    (lane,) = worker.scheduler.busy
    assert lane.in_hand
    worker.revoked.add(revoked)
    costly.world.run(1.0)
    (_, begin), (at, end) = [(instant, request) for instant, request in worker.releases]

    assert (begin, end) == (first, large)
    assert at >= 0.4


def test_a_slot_far_ahead_takes_no_process_from_other_lanes(redis_client: redis.Redis, figures: Figures) -> None:
    """One process, and a lane whose only slot is 5 s ahead: another lane has all of its 20/s meanwhile."""
    costly = Costly(redis_client, 1, 0.02, processes=1)
    (worker,), far, near = costly.workers, of_all("far", limit_of(100)), of_all("near", limit_of(20))
    _, large = costly.hold(worker, (far,), [(1,), (500,)])
    costly.hold(worker, (near,), [(1,)] * 200)
    costly.world.run(6.0)
    share = used([it for it in costly.units(near) if it < 4.9], 1 / 20, 0.1, 4.5)
    figures(f"one process beside a slot far ahead: {share:.4f} of the other limit used")

    assert large in [request for _, request in worker.releases]
    assert share >= 0.97


@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 20))])
def test_whatever_is_revoked_and_however_long_tasks_run_all_others_start(redis_client: redis.Redis, seed: int) -> None:
    """Random costs, of which some are 0 and some larger than the burst; a fifth is revoked, at any time.

    300 requests of 8 units on average, at 100 units and 40 starts a second: less than half a minute.
    """
    draw = random.Random(seed)
    costly = Costly(redis_client, 3, draw.choice([0.001, 0.02, 0.3]))
    tokens, requests = of_all("tokens", limit_of(100, draw.choice([1, 20]))), of_all("requests", limit_of(40))
    held = []
    for worker in costly.workers:
        costs = [(draw.choice([0, 1, 5, draw.randint(0, 40)]), draw.choice([0, 1])) for _ in range(100)]
        held.append((worker, costly.hold(worker, (tokens, requests), costs)))
    revoked = [(draw.uniform(0, 20), *draw.choice(held)) for _ in range(60)]
    for at, worker, queue in sorted(revoked, key=lambda it: it[0]):
        costly.world.run(at)
        worker.revoked.add(draw.choice(queue))
    costly.world.run(60)
    started = {request for _, request in costly.releases}

    assert all(set(queue) - started <= worker.revoked for worker, queue in held)
    assert len(costly.releases) == len(started)
    assert max(costly.excess(tokens, 40), costly.excess(requests, 1)) <= 0


def test_what_costs_nothing_does_not_wait_for_what_something_would(redis_client: redis.Redis) -> None:
    """At 1/h, after the only slot: the worker comes back after 5 s, and for a request of another cost at once."""
    costly = Costly(redis_client, 1, 0.02)
    (worker,), bucket = costly.workers, Bucket("api", "smooth", limit_of(1 / 3600))
    costs = {0: (1,), 1: (0,), 2: (0,)}
    lane = Lane("t", (bucket,), cost_of=costs.__getitem__)
    fill(worker, lane, range(1))
    costly.world.run(0.5)
    fill(worker, lane, range(1, 3))
    costly.world.run(1.0)

    assert [request for _, request in worker.releases] == [0, 1, 2]
