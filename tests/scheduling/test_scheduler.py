"""The scheduler in virtual time: simulated workers on one model lane, hurt at random, and the invariants."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from celery_global_rate.limits.bucket import own
from celery_global_rate.limits.limit import Limit
from celery_global_rate.limits.timing import HORIZON_S
from celery_global_rate.scheduling.lane import FEW, SHORTEST_PAUSE_S, Lane
from testbed.windows import excess, jain, used

from .simulation import Worker, fill, model_world

LIMITS = st.builds(
    Limit.parse,
    st.sampled_from(["1/s", "7/s", "10/s", "40/s", "100/s", "700/s", "100000/s"]),
    st.sampled_from([1, 1, 2, 20]),
)


def releases(workers: list[Worker]) -> list[float]:
    """The instants of all releases, sorted."""
    return sorted(instant for worker in workers for instant, _ in worker.releases)


def excess_of(workers: list[Worker], limit: Limit) -> float:
    """Releases in the worst window beyond the promise of the limit."""
    slack_s = limit.grace_s + max(worker.clock.widest_s for worker in workers)
    return excess(releases(workers), limit.interval_s, limit.burst, slack_s)


@hypothesis_settings(max_examples=150)
@given(LIMITS, st.integers(1, 6), st.integers(0, 2**32), st.sampled_from([0.0005, 0.02, 0.06, 0.3]))
def test_whatever_happens_to_the_workers(limit: Limit, count: int, seed: int, run_time: float) -> None:
    """Random arrivals, stops of up to 3 s, kills, revokes and slow answers: never more, nothing lost, nothing twice.

    A killed worker's held requests come to another one, as a broker would deliver them.
    """
    world = model_world(seed)
    chance = world.random

    def latency() -> float:
        return chance.choice([0.0003, 0.001, 0.02, 0.2 if chance.random() < 0.1 else 0.001])

    workers = [
        Worker(world, f"w{n}", chance.randint(1, 4), lambda: run_time * chance.random(), latency) for n in range(count)
    ]
    lanes = {worker.name: Lane("t", own("t", limit)) for worker in workers}
    arrivals: dict[str, list[int]] = {worker.name: [] for worker in workers}

    def arrive(worker: Worker, request: int) -> None:
        if not worker.alive:
            worker = workers[0]
        arrivals[worker.name].append(request)
        worker.run_soon(partial(worker.scheduler.hold, lanes[worker.name], request))

    def kill(worker: Worker) -> None:
        worker.alive = False
        released = {request for _, request in worker.releases}
        for request in [request for request in arrivals[worker.name] if request not in released]:
            arrive(worker, request)

    requests = range(60)
    for request in requests:
        world.at(chance.uniform(0, 4), partial(arrive, chance.choice(workers[:1] + workers), request))
    for _ in range(3):
        world.at(chance.uniform(0, 4), partial(chance.choice(workers).stop, chance.uniform(0, 3)))
    revoked = set(chance.sample(requests, 10))
    for request in revoked:
        world.at(chance.uniform(0, 6), partial(workers[0].revoked.add, request))
    if count > 1 and chance.random() < 0.7:
        world.at(chance.uniform(1, 4), partial(kill, workers[-1]))
    world.run(20 + 60 * limit.interval_s * 1.5)

    released = Counter(request for worker in workers for _, request in worker.releases)
    assert excess_of(workers, limit) <= 0
    assert max(released.values()) == 1
    assert set(requests) - set(released) <= revoked
    for worker in workers:
        order = {request: place for place, request in enumerate(arrivals[worker.name])}
        places = [order[request] for _, request in worker.releases if request in order]
        assert places == sorted(places)


@pytest.mark.parametrize("rate", ["7/s", "10/s", "100/s", "1000/s"])
@pytest.mark.parametrize("count", [1, 4, 10])
def test_no_slot_is_left_while_a_worker_has_work_and_a_free_process(rate: str, count: int) -> None:
    """Tasks of 0.7 ms, wake-ups up to 2 ms late: 0.995 of the slots, in equal shares.

    Measured from start to start, so the edges of the watch cost nothing.
    """
    limit = Limit.parse(rate)
    assert limit is not None
    seconds = max(4, 100 * limit.interval_s)
    world = model_world(seed=count)
    workers = [
        Worker(world, f"w{n}", 2, lambda: 0.0007, lateness=lambda: world.random.uniform(0, 0.002)) for n in range(count)
    ]
    for worker in workers:
        fill(worker, Lane("t", own("t", limit)), range(int((seconds + 2) * limit.per_second)))
    world.run(seconds + 2)

    instants = releases(workers)
    assert 0.995 <= used(instants, limit.interval_s, 1, 1 + seconds) <= 1.005
    assert excess_of(workers, limit) <= 0
    assert jain(len(worker.releases) for worker in workers) >= 0.95


@pytest.mark.parametrize(("late_ms", "missed"), [(19, 0), (21, 1)])
def test_no_hand_over_begins_at_the_end_of_the_grace(late_ms: int, missed: int) -> None:
    """A worker that stands still until 19 ms after its slot uses it; after 21 ms the hand-over might end too late.

    The slot is 100 ms after the first one, which was due when it was reserved, one way (0.2 ms) before its release.
    """
    world = model_world()
    worker = Worker(world, "w", 2, lateness=lambda: 0.0)
    fill(worker, Lane("t", own("t", Limit.parse("10/s"))), range(2))
    world.run(0.09)
    worker.stop(0.01 + late_ms / 1000)
    world.run(1)

    first, second = releases([worker])
    assert worker.scheduler.missed == missed
    assert (second - first <= 0.125) == (missed == 0)


def test_slots_are_not_reserved_for_a_pool_that_cannot_start_anything() -> None:
    """All processes busy for 4 s with 8 requests held at 2/s: afterwards starts 0.5 s apart, and no burst.

    A slot is used at most a grace (50 ms) after its instant, so two starts are at least T - D apart, and with work
    waiting no more than T + D.
    """
    limit = Limit.parse("2/s")
    assert limit is not None
    world = model_world()
    run_times = iter([4.0, 4.0] + [0.001] * 8)
    worker = Worker(world, "w", 2, lambda: next(run_times))
    fill(worker, Lane("free", ()), range(-2, 0))
    fill(worker, Lane("t", own("t", limit)), range(8))
    world.run(3.9)
    calls_while_busy = world.calls
    world.run(10)

    starts = [instant for instant, request in worker.releases if request >= 0]
    gaps = [later - earlier for earlier, later in zip(starts, starts[1:])]
    assert calls_while_busy == 0
    assert len(starts) == 8
    assert 4.0 <= starts[0] <= 4.1
    assert all(0.5 - limit.grace_s <= gap <= 0.5 + limit.grace_s for gap in gaps)


@pytest.mark.parametrize("run_time", [0.001, 0.01, 0.1, 1.0])
@pytest.mark.parametrize("rate", ["1/s", "10/s", "100/s"])
def test_tasks_without_a_limit_that_fill_the_pool_share_it(rate: str, run_time: float) -> None:
    """Two processes, six unlimited tasks waiting at any time: limited tasks get their rate, or a fifth of the pool.

    Two places among six others: 2 of 8 starts are ours while we keep both, and a place is away for one pause and a
    wait for the slot at the most. Less than half of that is too little. The pool is never left idle for longer than
    the horizon for each of our starts.
    """
    limit = Limit.parse(rate)
    assert limit is not None
    world = model_world()
    worker = Worker(world, "w", 2, lambda: run_time)
    worker.crowd(6)
    fill(worker, Lane("t", own("t", limit)), range(10_000))
    world.run(60)

    starts = [instant for instant, _ in worker.releases]
    share = min(limit.per_second, 2 / run_time / 5)
    figure = len(starts) / 60 / share
    assert figure >= 0.5
    assert excess(starts, limit.interval_s, 1, limit.grace_s + worker.clock.widest_s) <= 0
    assert worker.others * run_time / 2 + len(starts) * (run_time / 2 + HORIZON_S) >= 0.9 * 60


@pytest.mark.parametrize(
    ("rate", "run_time", "processes", "share"),
    [
        ("20/s", 0.1, 8, 0.97),
        ("5/s", 0.1, 8, 0.97),
        ("40/s", 0.1, 8, 0.97),
        ("100/s", 0.02, 8, 0.97),
        ("2/s", 1, 8, 0.8),
    ],
)
def test_a_limited_task_takes_its_turn_as_if_it_had_gone_to_the_pool_when_it_came(
    rate: str, run_time: float, processes: int, share: float
) -> None:
    """24 tasks without a limit wait at any time: limited ones have their rate, and the pool is busy all the same.

    Without a limit they would have four of seven places in the line, more than their rate. A slot is lost if no
    process ends between the claim and the end of the slot's grace: seldom where one ends every 12.5 ms, and for one
    in five slots where that is 125 ms. The pool idles from a claim that came early until the slot: 0.95 is left.
    """
    limit = Limit.parse(rate)
    assert limit is not None
    world = model_world(1)
    worker = Worker(world, "w", processes, lambda: run_time * world.random.uniform(0.95, 1.05))
    worker.crowd(24)
    fill(worker, Lane("t", own("t", limit)), range(7000))
    begin, end = 3 + 8 * run_time, 60
    world.run(end)

    starts = releases([worker])
    assert share <= used(starts, limit.interval_s, begin, end - 1) <= 1.01
    assert (worker.others - 24 - processes + len(starts)) * run_time / processes >= 0.95 * end
    assert excess_of([worker], limit) <= 0


def test_after_a_rest_all_that_is_held_needs_a_prefetch_slot() -> None:
    """A far limit lends little after a second of work; a burst after five seconds of idling waits for its slots."""
    world = model_world()
    worker = Worker(world, "w", 1, lambda: 1.0)
    lane = Lane("t", own("t", Limit.parse("100/s", 50)))
    fill(worker, lane, range(2))
    world.run(7)
    fill(worker, lane, range(2, 62))
    world.run(7.01)

    assert worker.scheduler.held > FEW
    assert worker.covered == worker.scheduler.held
    world.run(10)
    assert worker.covered == FEW


def test_a_limit_out_of_reach_keeps_the_pool_busy_with_few_looks() -> None:
    """Two processes, tasks of 2 ms: nearly 1000 starts a second, at most eight on deck, less than a call in 10 ms."""
    world = model_world()
    worker = Worker(world, "w", 2, lambda: 0.002)
    fill(worker, Lane("t", own("t", Limit.parse("100000/s"))), range(10_000))
    decks, calls = [], []
    for step in range(1, 4000):
        world.run(step / 1000)
        decks.append(worker.on_deck)
        calls.append(world.calls)
    busy = sum(2 <= instant < 3 for instant, _ in worker.releases)

    assert 0.97 * 1000 <= busy <= 1000 + 8
    assert 2 < max(decks) <= 8
    assert calls[3000] - calls[2000] <= 0.9 / SHORTEST_PAUSE_S


@pytest.mark.parametrize(("factor", "deck"), [(100.0, 8), (0.9, 0)])
def test_tasks_of_20_ms_wait_on_deck_only_behind_a_limit_out_of_reach(factor: float, deck: int) -> None:
    """Eight processes, 400/s: one task a process there, and none where slots are what the pool waits for."""
    world = model_world()
    worker = Worker(world, "w", 8, lambda: 0.02 * world.random.uniform(0.95, 1.05))
    fill(worker, Lane("t", own("t", Limit.parse(400 * factor))), range(10_000))
    decks = []
    for step in range(2000, 4000):
        world.run(step / 1000)
        decks.append(worker.on_deck)

    assert max(decks) == deck


def test_a_stream_of_quick_tasks_is_no_rest_and_needs_few_calls() -> None:
    """A task in 1.5 ms, eight processes: now and then nothing is held, and the limit is far all the same.

    A call in 20 ms and a few more: at most 60 a second, where every pause of 10 ms has its call without that.
    """
    world = model_world()
    worker = Worker(world, "w", 8, lambda: 0.0005)
    lane = Lane("t", own("t", Limit.parse("100000/s")))
    for number in range(2600):
        world.at(number * 0.0015, partial(worker.run_soon, partial(worker.scheduler.hold, lane, number)))
    world.run(2.5)
    calls = world.calls
    world.run(3.5)

    assert lane.is_far
    assert world.calls - calls <= 60
    assert len(worker.releases) >= 3.5 / 0.0015 - 32


def test_a_burst_is_saved_while_idle_and_spent_at_once() -> None:
    """50 slots are due when asked for: all start within a pause and a round trip, the 51st a slot later."""
    limit = Limit.parse("100/s", 50)
    assert limit is not None
    world = model_world()
    worker = Worker(world, "w", 60, lambda: 1.0)
    fill(worker, Lane("t", own("t", limit)), range(60))
    world.run(1)

    instants = releases([worker])
    assert instants[49] - instants[0] <= SHORTEST_PAUSE_S + 0.002
    assert instants[59] - instants[0] >= 10 * limit.interval_s - limit.grace_s
    assert excess_of([worker], limit) <= 0


def test_held_requests_follow_a_new_limit_and_none_releases_them() -> None:
    """From 1/h to 100/s, the next start comes at once; without a limit, all others do."""
    world = model_world()
    worker = Worker(world, "w", 4)
    lane = Lane("t", own("t", Limit.parse("1/h")))
    fill(worker, lane, range(100))
    world.run(2)
    under_the_old = len(worker.releases)
    worker.scheduler.configure(lane, own("t", Limit.parse("100/s")))
    world.run(2.5)
    under_the_new = len(worker.releases)
    worker.scheduler.configure(lane, ())
    released_at_once = len(worker.releases) - under_the_new
    world.run(2.6)

    assert under_the_old == 1
    assert 45 <= under_the_new - under_the_old <= 53
    assert released_at_once == worker.processes
    assert len(worker.releases) == 100


def test_the_same_limit_again_changes_nothing() -> None:
    """Set ten times a second for 5 s, 100/s stays 100/s (stock Celery multiplies it)."""
    world = model_world()
    worker = Worker(world, "w")
    lane, limit = Lane("t", own("t", Limit.parse("100/s"))), Limit.parse("100/s")
    assert limit is not None
    fill(worker, lane, range(2000))
    for tenth in range(100):
        world.at(tenth / 10, partial(worker.scheduler.configure, lane, own("t", Limit.parse("100/s"))))
    world.run(10)

    assert excess_of([worker], limit) <= 0
    assert used(releases([worker]), limit.interval_s, 1, 9.9) >= 0.995


def test_slots_in_hand_are_given_back_when_the_requests_go() -> None:
    """A worker that loses its requests right after it reserved the one slot of the minute leaves it to another."""
    limit = Limit.parse("1/m")
    world = model_world()
    first, second = Worker(world, "w1"), Worker(world, "w2")
    fill(first, Lane("t", own("t", limit)), range(2))
    world.run(59.95)
    assert len(first.releases) == 1

    first.scheduler.clear()
    fill(second, Lane("t", own("t", limit)), range(1))
    world.run(66)
    assert [round(instant) for instant in releases([first, second])] == [0, 60]


def test_a_late_answer_is_not_used() -> None:
    """A worker is stopped between sending and reading its first call: the slots it then reads are 30 s old.

    It knows nothing yet of the Redis clock, so only the time that the answer took can show it.
    """
    limit = Limit.parse("10/s", 5)
    assert limit is not None
    world = model_world()
    worker = Worker(world, "w", latency=lambda: 0.01)
    fill(worker, Lane("t", own("t", limit)), range(5))
    world.at(0.005, partial(worker.stop, 30))
    world.run(40)

    assert min(releases([worker])) >= 30
    assert worker.clock.widest_s < 0.1
    assert excess_of([worker], limit) <= 0


def test_revoked_requests_spend_no_slot() -> None:
    """At 1/s, three revoked ones before a live one: it starts with the next slot, not with the fourth."""
    world = model_world()
    worker = Worker(world, "w")
    fill(worker, Lane("t", own("t", Limit.parse("1/s"))), range(5))
    world.run(0.5)
    worker.revoked.update([1, 2, 3])
    world.run(3)

    assert [request for _, request in worker.releases] == [0, 4]
    assert 1.0 <= releases([worker])[1] <= 1.1


def test_an_idle_bucket_makes_no_calls() -> None:
    world = model_world()
    worker = Worker(world, "w")
    fill(worker, Lane("t", own("t", Limit.parse("10/s"))), range(3))
    world.run(2)
    calls = world.calls
    world.run(1000)

    assert world.calls == calls


def test_calls_do_not_depend_on_rate_and_backlog() -> None:
    """A worker that waits for slots asks every half horizon to a whole one: 10 to 20 times a second."""
    for rate in ("20/s", "100/s", "500/s"):
        for backlog in (2000, 20000):
            world = model_world()
            workers = [Worker(world, f"w{n}", 2, lambda: 0.0007) for n in range(2)]
            for worker in workers:
                fill(worker, Lane("t", own("t", Limit.parse(rate))), range(backlog))
            world.run(10)

            assert 10 <= world.calls / 10 / len(workers) <= 20


def test_two_buckets_share_a_pool() -> None:
    """With one process and two limits far away, both lanes get their turn."""
    world = model_world()
    worker = Worker(world, "w", 1, lambda: 0.02)
    for name, requests in (("a", range(1000)), ("b", range(1000, 2000))):
        fill(worker, Lane(name, own(name, Limit.parse("1000/s"))), requests)
    world.run(10)

    of_a = sum(request < 1000 for _, request in worker.releases)
    assert len(worker.releases) >= 0.9 * 500
    assert 0.4 <= of_a / len(worker.releases) <= 0.6


def test_a_clock_that_steps_back_stalls_a_worker_no_longer_than_its_patience() -> None:
    """An hour back, with slots in hand: they are dropped, S keeps its lead, and the rate is the same again in 1 s."""
    limit = Limit.parse("20/s")
    assert limit is not None
    world = model_world()
    worker = Worker(world, "w")
    fill(worker, Lane("t", own("t", limit)), range(400))
    world.run(5)
    world.clock_step_us = -3_600_000_000
    world.run(10)

    assert used(releases([worker]), limit.interval_s, 6, 9.9) >= 0.98
    assert len(releases([worker])) <= 10 * 20 + 1 + 3


def test_runs_are_reproducible() -> None:
    """The same seed gives the same run: what a failing example shows can be looked at again."""

    def run() -> list[float]:
        world = model_world(seed=7)
        workers = [Worker(world, f"w{n}", latency=lambda: world.random.random() / 100) for n in range(3)]
        for worker in workers:
            fill(worker, Lane("t", own("t", Limit.parse("50/s"))), range(100))
        world.run(3)
        return releases(workers)

    random.seed()
    assert run() == run()


@pytest.mark.parametrize("rate", ["1/s", "100/s", "100000/s"])
def test_a_lane_starts_nothing_before_its_floor_even_if_no_limit_of_it_has_one(rate: str) -> None:
    """Such as a paused task without a limit of its own in a named bucket: Redis has no bucket of that task.

    It is paused for two seconds, with slots in hand or a call under way and at the highest rate with slots to spare.
    After them it goes on: at 1/s a slot was free meanwhile. It asks when the pause is over, and has an answer at once.
    """
    world = model_world()
    worker = Worker(world, "w0", 8, lambda: 0.002)
    buckets = own("t", Limit.parse(rate))
    lane = Lane("t", buckets)
    fill(worker, lane, range(20_000))
    world.run(3.0)
    paused_at, floor_us = world.now, world.redis_us + 2_000_000
    begun = len(worker.releases)
    worker.scheduler.configure(lane, buckets, floor_us)
    worker.scheduler.hold(lane, 20_000)
    world.run(paused_at + 2.0 - 0.001)
    in_pause = len(worker.releases) - begun
    world.run(paused_at + 2.0 + 2 * HORIZON_S)

    assert begun > 0
    assert in_pause == 0
    assert len(worker.releases) > begun
