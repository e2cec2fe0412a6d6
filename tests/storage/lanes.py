"""Lives of lanes that cross, on the real scripts, and whether each of their limits has kept its promise."""

from __future__ import annotations

import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import redis

from celery_global_rate.limits.bucket import OWN, Bucket
from celery_global_rate.limits.costs import Cost, Costs
from celery_global_rate.limits.lane_reservation import LaneReservation
from celery_global_rate.limits.limit import PS_PER_US, Limit
from celery_global_rate.limits.redis_clock import LAST_US
from celery_global_rate.limits.reservation import Reservation
from celery_global_rate.limits.windows import Calendar, Sliding
from celery_global_rate.storage.scripts import (
    BACK_OFF,
    GIVE_BACK,
    GIVE_BACK_LANE,
    RESERVE,
    RESERVE_LANE,
    back_off_call,
    bucket_key,
    give_back_call,
    give_back_lane_call,
    log_key,
    reserve_call,
    reserve_lane_call,
    waiting_key,
)

from .replay import CHANNEL, HORIZON_US, NOW, PREFIX, slots

LANE_SOURCES = {
    "reserve_lane": RESERVE_LANE.source,
    "give_back_lane": GIVE_BACK_LANE.source,
    "reserve": RESERVE.source,
    "give_back": GIVE_BACK.source,
    "back_off": BACK_OFF.source,
}
#: A start is usable for no less than this share of D.
LEAST_USE = 0.7
MOST_RANGES = 16
#: Nothing is granted in the last of a fixed window, and a slot may be used until half of that is left.
GUARD_US = 50_000
MOST_WINDOWS = 8
#: From when on fixed windows are counted, epoch seconds.
ORIGIN_S = int((datetime(1, 1, 1) - datetime(1970, 1, 1)).total_seconds())

Lane = tuple[Bucket, ...]
#: Entries: an instant, and how many slots left the bucket then.
Log = list[tuple[int, int]]


class Lanes:
    """Calls the scripts for lanes as a worker does, except that the caller says what time it is."""

    def __init__(self, client: redis.Redis, sources: Mapping[str, str] = LANE_SOURCES) -> None:
        self.client = client
        self._scripts: dict[str, Callable[..., Any]] = {
            verb: client.register_script(source) for verb, source in sources.items()
        }

    def _run(self, verb: str, call: Sequence[Any], *now_us: int) -> Any:
        count, *rest = call
        return self._scripts[verb](rest[:count], [*rest[count:], *now_us])

    def reserve(
        self,
        now_us: int,
        lane: Lane,
        wanted: int = 1,
        worker: str = "one",
        overrides: Sequence[str] | None = None,
        awake_us: int = NOW,
        seen_us: int | None = None,
        costs: Costs | None = None,
        latest_us: int = LAST_US,
    ) -> LaneReservation:
        """One call; `seen_us` is what the caller takes for now, if it is wrong about that."""
        texts = [""] * len(lane) if overrides is None else overrides
        caller_us = now_us if seen_us is None else seen_us
        call = reserve_lane_call(PREFIX, lane, wanted, worker, texts, awake_us, caller_us, costs, latest_us)
        answer = LaneReservation.read(self._run("reserve_lane", call, now_us), len(lane))
        answer.costs = costs.of_each if costs else None
        return answer

    def spend(
        self,
        now_us: int,
        lane: Lane,
        *costs: int | Cost,
        worker: str = "one",
        after_us: int = 0,
        latest_us: int = LAST_US,
    ) -> LaneReservation:
        """One call for a slot of each of these costs: of all limits of the lane alike, or of each."""
        of_each = tuple(cost if isinstance(cost, tuple) else (cost,) * len(lane) for cost in costs)
        return self.reserve(now_us, lane, len(costs), worker, costs=Costs(of_each, after_us), latest_us=latest_us)

    def give_back(self, lane: Lane, reservation: LaneReservation, *now_us: int) -> list[int]:
        """Give the slots back that are left; how many of them each limit takes."""
        taken: list[int] = self._run("give_back_lane", give_back_lane_call(PREFIX, lane, reservation), *now_us)
        return taken

    def reserve_plain(
        self, now_us: int, bucket: Bucket, wanted: int = 1, worker: str = "one", override: str = "", awake_us: int = NOW
    ) -> Reservation:
        """What a worker does that knows this limit alone."""
        return Reservation.read(
            self._run("reserve", reserve_call(PREFIX, (bucket,), wanted, worker, (override,), awake_us), now_us)
        )

    def give_back_plain(self, now_us: int, bucket: Bucket, reservation: Reservation) -> bool:
        return bool(self._run("give_back", give_back_call(PREFIX, (bucket,), reservation), now_us))

    def back_off(self, now_us: int, length_us: int, *buckets: Bucket, note: str = "") -> tuple[int, bool]:
        """An API asks for a pause of some limits of one name; until when, and whether that is later than before."""
        windows = [bucket.window for bucket in buckets]
        call = back_off_call(PREFIX, buckets[0].name, windows, length_us, CHANNEL, note)
        _, until_us, is_later = self._run("back_off", call, now_us)
        return until_us, bool(is_later)

    def lose(self, *buckets: Bucket) -> None:
        """Lose the state of limits."""
        self.lose_hash(*buckets)
        self.lose_log(*buckets)

    def lose_hash(self, *buckets: Bucket) -> None:
        """Lose it but for the logs of sliding limits."""
        self.client.delete(*(bucket_key(PREFIX, bucket.name, bucket.window) for bucket in buckets))

    def lose_log(self, *buckets: Bucket) -> None:
        """Lose these logs."""
        self.client.delete(*(log_key(PREFIX, bucket.name, bucket.window) for bucket in buckets))

    def fields(self, *buckets: Bucket) -> list[dict[str, str]]:
        """The state of limits."""
        with self.client.pipeline(transaction=False) as pipeline:
            for bucket in buckets:
                pipeline.hgetall(bucket_key(PREFIX, bucket.name, bucket.window))
            return pipeline.execute()

    def holes(self, bucket: Bucket) -> list[int]:
        """The free slots before S."""
        interval, _, *ranges = (self.fields(bucket)[0].get("holes") or "1 0").split()
        pairs = [tuple(map(int, text.split(":"))) for text in ranges]
        return [us + index * int(interval) for us, count in pairs for index in range(count)]

    def windows(self, bucket: Bucket) -> dict[int, int]:
        """How many starts are booked in each window of a fixed limit that is known, by its begin."""
        return parse_windows(self.fields(bucket)[0])

    def logs(self, *buckets: Bucket) -> list[Log]:
        """The log of each sliding limit, the oldest entry first; of the others an empty one."""
        with self.client.pipeline(transaction=False) as pipeline:
            for bucket in buckets:
                pipeline.lrange(log_key(PREFIX, bucket.name, bucket.window), 0, -1)
            listed = [list(map(int, words)) for words in pipeline.execute()]
        return [list(zip(numbers[-2::-2], numbers[::-2])) for numbers in listed]

    def waiting(self, bucket: Bucket) -> dict[str, float]:
        """Who waits at a limit, and until when."""
        return dict(
            self.client.zrange(waiting_key(PREFIX, bucket.name, bucket.window), 0, -1, withscores=True)  # type: ignore[arg-type]
        )


def parse_windows(state: Mapping[str, str]) -> dict[int, int]:
    """The windows in the state of a fixed limit: begin -> how many starts are booked."""
    return {int(begin): int(used) for begin, used in (text.split(":") for text in state.get("windows", "").split()[1:])}


def owed_of(state: Mapping[str, str]) -> int:
    """What a fixed limit owes for a start that has cost more than N."""
    return int(state.get("owed", "0 0").split()[1])


def costs_of(answer: LaneReservation, lane: Lane) -> tuple[Cost, ...]:
    """What each slot costs of each limit."""
    return answer.costs or ((1,) * len(lane),) * answer.count


def window_us(limit: Limit, instant_us: int) -> tuple[int, int]:
    """Begin and end of a window that is no date."""
    assert isinstance(limit.window, Calendar)
    assert not limit.window.months
    assert not limit.window.timezone
    length_us, origin_us = limit.window.seconds * 10**6, (ORIGIN_S + limit.window.offset_s) * 10**6
    begin_us = instant_us - (instant_us - origin_us) % length_us
    return begin_us, begin_us + length_us


@dataclass
class Witness:
    """The starts of one limit, between two events after which it counts anew.

    The promise: a window of length w holds at most b + (w + D)/T starts. Where callers have declared different limits,
    T is the least of theirs, and (b-1) T + D the most. Where starts cost several units, these count, and b is the
    largest cost if that is more.
    """

    starts_us: list[int] = field(default_factory=list)
    interval_ps: int = 0
    spread_ps: int = 0

    def start(self, start_us: int, interval_ps: int, limit: Limit, units: int = 1) -> None:
        spread_ps = (max(limit.burst, units) - 1) * interval_ps + int(limit.grace_s * 1e6) * PS_PER_US
        self.starts_us += [start_us] * units
        self.interval_ps = min(interval_ps, self.interval_ps or interval_ps)
        self.spread_ps = max(spread_ps, self.spread_ps)

    def spare_us(self) -> float:
        """How much shorter D could be with the promise still kept; less than nothing if it is broken.

        The window from start i to start j holds n = j - i + 1 <= b + (w + D)/T, so (j - i) T - w <= (b-1) T + D. With
        e(k) = k T - start(k), that is e(j) - e(i) <= (b-1) T + D: the least e before each j checks all windows.
        """
        least_ps = spare_ps = None
        for index, start_us in enumerate(sorted(self.starts_us)):
            early_ps = index * self.interval_ps - start_us * PS_PER_US
            least_ps = early_ps if least_ps is None else min(least_ps, early_ps)
            spare = self.spread_ps - (early_ps - least_ps)
            spare_ps = spare if spare_ps is None else min(spare, spare_ps)
        return float("inf") if spare_ps is None else spare_ps / PS_PER_US


@dataclass
class FixedWitness:
    """The starts of a limit of fixed windows, between two events after which it counts anew.

    The promise: at most N in each window, or one start that costs more. Where callers have declared several N, the
    most of these.

    Attributes:
        used: starts in each window, by its begin.
        most: N.
        eras: what is lost may be given once more. Where slots of before can still come back, both count together.
    """

    used: Counter[int] = field(default_factory=Counter)
    most: int = 0
    eras: int = 1

    def start(self, start_us: int, limit: Limit, units: int = 1) -> None:
        self.used[window_us(limit, start_us)[0]] += units
        self.most = max(self.most, limit.burst, units)

    def spare(self) -> int:
        """How many starts more there could have been in the fullest window."""
        return self.most * self.eras - max(self.used.values(), default=0)


@dataclass
class SlidingWitness:
    """The starts of a limit of sliding windows, between two events after which it counts anew.

    The promise: at most N in any period P if slots stay for P + D, and in any P - D if they stay for P. Where callers
    have declared different N, the most of these, in what the shortest stay leaves of the longest D.

    Attributes:
        starts_us: on a clock that does not step, in any order.
        length_us: of such a period.
        most, eras: as of fixed windows.
    """

    starts_us: list[int] = field(default_factory=list)
    span_us: int = sys.maxsize
    grace_us: int = 0
    most: int = 0
    eras: int = 1

    @property
    def length_us(self) -> int:
        return self.span_us - self.grace_us

    def start(self, start_us: int, limit: Limit, units: int = 1) -> None:
        self.starts_us += [start_us] * units
        self.most = max(self.most, limit.burst, units)
        self.span_us = min(self.span_us, limit.span_us)
        self.grace_us = max(self.grace_us, int(limit.grace_s * 1e6))

    def spare(self) -> int:
        """How many starts more there could have been in the fullest period: one that ends with a start."""
        fullest, within = 0, deque[int]()
        for start_us in sorted(self.starts_us):
            within.append(start_us)
            while within[0] <= start_us - self.length_us:
                within.popleft()
            fullest = max(fullest, len(within))
        return self.most * self.eras - fullest


@dataclass
class ModelLog:
    """What the log of a sliding limit has to be, from its state and the instant of a call.

    Attributes:
        now_us, last_us: on the clock of the log, which never steps back.
        is_missing: whether a part of the state is lost, and so all of it.
    """

    entries: Log
    now_us: int
    shift_us: int
    last_us: int
    is_missing: bool

    @classmethod
    def of(cls, state: Mapping[str, str], log: Log, now_us: int, limit: Limit) -> ModelLog:
        if is_log_missing(state, log):
            return cls([], now_us, 0, 0, True)
        shift_us = int(after_step(state, log, now_us)["shift"])
        now_us += shift_us
        left = [(us, slots) for us, slots in log if us + limit.span_us > now_us]
        return cls(left, now_us, shift_us, int(state["last"]), False)

    @property
    def used(self) -> int:
        return sum(slots for _, slots in self.entries)

    def book(self, us: int, limit: Limit, units: int = 1) -> None:
        """What costs more than N is booked N by N, a span apart."""
        first_us = max(us + self.shift_us, self.last_us)
        for place, booked in enumerate(range(0, units, limit.burst)):
            self.last_us = first_us + place * limit.span_us
            slots = min(limit.burst, units - booked)
            if self.entries and self.entries[-1][0] // limit.cell_us == self.last_us // limit.cell_us:
                slots += self.entries.pop()[1]
            self.entries.append((self.last_us, slots))

    def take_back(self, slots_us: Sequence[int]) -> int:
        """Of the first entry that is not before a slot, one is taken; of none, if all are later: it may have left."""
        units = [us for us, slots in self.entries for _ in range(slots)]
        oldest_us, taken = units[0] if units else sys.maxsize, 0
        for us in slots_us:
            later = [unit for unit in units if unit >= us + self.shift_us >= oldest_us]
            if later:
                units.remove(later[0])
                taken += 1
        self.entries = [(us, count) for us, count in sorted(Counter(units).items())]
        return taken


def is_log_missing(state: Mapping[str, str], log: Log) -> bool:
    """Whether the hash or the log of a sliding limit is lost."""
    return "born" not in state or (int(state["used"]) > 0 and not log)


def after_step(state: Mapping[str, str], log: Log, now_us: int) -> dict[str, str]:
    """What even a refused call makes of the state of a limit from before the clock stepped back."""
    if "slot" in state and int(state["slot"]) - now_us > int(state["lead"]):
        return {**state, "slot": str(now_us + int(state["lead"])), "holes": ""}
    if "shift" in state and not is_log_missing(state, log):
        shift_us = int(state["last"]) - int(state["lead"]) - now_us
        if shift_us > int(state["shift"]):
            return {**state, "shift": str(shift_us), "born": str(int(state["seq"]) + 1)}
    return dict(state)


@dataclass
class InHand:
    """Slots that are not used, and may be given back.

    Attributes:
        lane, reservation: what they are slots of.
        is_lost: whether a state that knew them has been lost.
    """

    lane: Lane
    reservation: LaneReservation
    is_lost: bool = False

    @property
    def names(self) -> set[str]:
        return {bucket.name for bucket in self.lane}


class Life:
    """A random life of some limits and lanes, the same for the same seed, with an adversary who picks each start.

    Each call is checked by itself as well: what it may change, and what its slots must be.

    Args:
        lanes: on which server, and with which scripts.
        seed: which life.
        fixed: how often a limit is one of fixed windows.
        sliding: how often one of the others is one of sliding windows.
        costs: how often slots do not cost one unit each.
        backs_off: how often an API asks for a pause; 24 is as often as slots are reserved.

    Attributes:
        used: starts so far.
        spare_us: the least that any smooth limit had to spare.
        spare: how many starts more there could have been in the fullest window of any fixed or sliding limit.
    """

    def __init__(
        self,
        lanes: Lanes,
        seed: int,
        fixed: float = 0,
        sliding: float = 0,
        costs: float = 0,
        backs_off: float = 0,
    ) -> None:
        self._lanes = lanes
        self._draw = draw = random.Random(seed)
        self._fixed, self._sliding, self._costs, self._backs_off = fixed, sliding, costs, backs_off
        self._buckets = [self._bucket(number) for number in range(draw.randrange(1, 5))]
        self._paths = [self._path() for _ in range(draw.randrange(1, 5))]
        self._slower = [*self._buckets]  # what a deploy makes of them
        if draw.random() < 0.4:
            self._slower = [replace(it, limit=self._deployed(it.limit)) for it in self._buckets]
        self._now = self._seen_us = NOW
        self._stepped_us = 0  # how far the clock has stepped back so far
        #: Of each fixed limit, the latest instant from which it knows the windows.
        self._latest_us = dict.fromkeys((bucket.name for bucket in self._buckets), NOW)
        self._versions: dict[str, tuple[int, int]] = {}  # version and floor
        self._offs: dict[str, tuple[int, int]] = {}  # until when a limit backs off, and for how long
        self._witnesses: dict[str, Witness] = {}
        self._quotas: dict[str, FixedWitness | SlidingWitness] = {}
        self._in_hand: list[InHand] = []
        self._plain: list[tuple[Bucket, Reservation]] = []
        self._states, self._logs = lanes.fields(*self._buckets), lanes.logs(*self._buckets)
        #: The adversary has starts come together at these instants, as far as their slots allow.
        self._rally_us, self._rally_at = draw.choice([20_000, 100_000, 400_000, 2_000_000]), draw.randrange(10**6)
        self._is_busy = draw.random() < 0.6
        self.used = 0
        self.spare_us = self.spare = float("inf")

    def _limit(self) -> Limit:
        draw = self._draw
        us = draw.choice([10_000, 20_000, 33_333, 3_000, 100_000, draw.randrange(1_000, 300_000)])
        return Limit(us, draw.choice([0, 0, 333_334]), draw.choice([1, 1, 1, 2, 3, 8]))

    def _quota(self) -> Limit:
        draw = self._draw
        seconds = draw.choice([1, 1, 1, 2, 5, 7, 10, 60, 240])
        return Limit.in_windows(f"{self._most()}/{seconds}s", draw.choice([None, draw.randrange(seconds)]))

    def _in_any(self) -> Limit:
        return Limit.in_any(f"{self._most()}/{self._draw.choice([1, 1, 2, 5, 7, 10, 60])}s")

    def _most(self) -> int:
        return self._draw.choice([1, 2, 3, 8, 30])

    def _deployed(self, limit: Limit) -> Limit:
        """A limit for the same state."""
        if isinstance(limit.window, Sliding):
            return Limit.in_any(f"{self._most()}/{limit.window.seconds}s")
        return replace(limit, burst=self._most()) if limit.window else self._limit()

    def _bucket(self, number: int) -> Bucket:
        if self._fixed and self._draw.random() < self._fixed:
            return Bucket(f"limit-{number}", "fixed", self._quota())
        if self._sliding and self._draw.random() < self._sliding:
            return Bucket(f"limit-{number}", "sliding", self._in_any())
        window = self._draw.choice([OWN, "smooth"])
        return Bucket(f"limit-{number}", window, self._limit(), self._draw.random() < 0.85)

    def _path(self) -> list[int]:
        numbers = range(len(self._buckets))
        return sorted(self._draw.sample(numbers, self._draw.randrange(1, len(self._buckets) + 1)))

    def _floor_us(self, bucket: Bucket) -> int:
        """By an operator's pause, or one that an API has asked for: that lasts no longer than it was to."""
        off_us, length_us = self._offs.get(bucket.name, (0, 0))
        return max(self._versions.get(bucket.name, (0, 0))[1], min(off_us, self._now + length_us))

    def _override(self, bucket: Bucket) -> str:
        version, floor_us = self._versions.get(bucket.name, (0, 0))
        return f"{version}:a:{floor_us}:{{}}" if version else ""

    def live(self, length: int) -> None:
        """Live for some steps, and check all windows."""
        draw = self._draw
        verbs = [self._reserve, self._give_back, self._reserve_plain, self._give_back_plain]
        verbs += [self._lose, self._step_back, self._pause]
        weights = [24, 8, 2, 1, 0.5, 0.7, 0.7]
        quotas = [bucket.limit for bucket in self._buckets if bucket.limit.window]
        fixed = [limit for limit in quotas if isinstance(limit.window, Calendar)]
        if fixed:
            verbs.append(lambda: self._go_to_an_edge(draw.choice(fixed)))
            weights.append(3)
        sliding = [bucket for bucket in self._buckets if isinstance(bucket.limit.window, Sliding)]
        if sliding:
            verbs.append(lambda: self._go_to_a_slot(draw.choice(sliding)))
            weights.append(5)
        if len(quotas) == len(self._buckets):
            weights[2:4] = 0, 0
        if self._backs_off:
            verbs.append(self._back_off)
            weights.append(self._backs_off)
        for _ in range(length):
            gaps = [0, draw.randrange(1000), draw.randrange(60_000), draw.randrange(400_000), draw.randrange(4_000_000)]
            self._now += draw.choices(gaps, [4, 4, 8, 3, 0.3] if self._is_busy else [2, 2, 4, 6, 3])[0]
            draw.choices(verbs, weights)[0]()
            self._look()
        for bucket in self._buckets:
            self._judge(bucket.name)

    def _look(self) -> None:
        self._states, self._logs = self._lanes.fields(*self._buckets), self._lanes.logs(*self._buckets)

    def _judge(self, name: str) -> None:
        """The end of an era: nothing that happens later counts with what has been."""
        if quota := self._quotas.pop(name, None):
            assert quota.spare() >= 0, f"{name}: a window holds {-quota.spare()} starts too many"
            self.spare = min(self.spare, quota.spare())
            return
        witness = self._witnesses.pop(name, Witness())
        spare_us = witness.spare_us()
        assert spare_us >= 0, f"{name}: a window holds too many starts, by {-spare_us:.0f} us"
        self.spare_us = min(self.spare_us, spare_us)

    def _start(self, lane: Lane, from_us: int, until_us: int, cost: Cost | None = None, is_plain: bool = False) -> None:
        rally_us = self._rally_at + round((from_us - self._rally_at) / self._rally_us) * self._rally_us
        start_us = max(from_us, min(rally_us, until_us))
        if (self._fixed or self._sliding) and self._draw.random() < 0.2:
            start_us = until_us
        self.used += 1
        for bucket, units in zip(lane, cost or (1,) * len(lane)):
            if not units:
                continue
            if isinstance(bucket.limit.window, Sliding):
                true_us = start_us + self._stepped_us
                self._quotas.setdefault(bucket.name, SlidingWitness()).start(true_us, bucket.limit, units)
                continue
            if bucket.limit.window:
                self._quotas.setdefault(bucket.name, FixedWitness()).start(start_us, bucket.limit, units)
                continue
            interval_ps = bucket.limit.exact_ps if is_plain else bucket.limit.whole_us * PS_PER_US
            self._witnesses.setdefault(bucket.name, Witness()).start(start_us, interval_ps, bucket.limit, units)

    def _lane(self) -> Lane:
        slower = self._draw.random() < 0.15
        return tuple((self._slower if slower else self._buckets)[number] for number in self._draw.choice(self._paths))

    def _reserve(self) -> None:
        draw, lane, now = self._draw, self._lane(), self._now
        wanted, awake_us = draw.choice([1, 2, 5, 30]), draw.choice([NOW, NOW, NOW, draw.randrange(300_000)])
        overrides, worker = [self._override(bucket) for bucket in lane], draw.choice(["one", "two", "three", "four"])
        error_us = self._draw.choice([0, 0, draw.randrange(-(10**6), 10**6)]) if self._fixed else 0
        costs = self._cost(lane, wanted) if self._costs and draw.random() < self._costs else None
        self._seen_us = now + error_us
        answer = self._lanes.reserve(now, lane, wanted, worker, overrides, awake_us, self._seen_us, costs)
        floors_us = [max(now - awake_us, self._floor_us(bucket)) for bucket in lane]
        self._check_slots(lane, answer, wanted, floors_us)
        self._check_states(lane, answer)
        self._check_windows(lane, answer)
        self._check_logs(lane, answer)
        if not error_us and not costs and max(floors_us) <= now and self._has_room(lane):
            assert answer.count, "there is room in the windows of all limits"
        answer.used = draw.choice([answer.count, answer.count, draw.randrange(answer.count + 1)])
        for start_us, until_us, cost in zip(answer.starts_us[: answer.used], answer.untils_us, costs_of(answer, lane)):
            self._start(lane, start_us, until_us, cost)
        if answer.left:
            self._in_hand.append(InHand(lane, answer))

    def _cost(self, lane: Lane, wanted: int) -> Costs:
        draw = self._draw
        largest = draw.choice([1, 2, 5, 12, 40])
        costs = [tuple(draw.choice([0, 1, 1, draw.randrange(largest + 1)]) for _ in lane) for _ in range(wanted)]
        return Costs(tuple(costs), draw.choice([0, 0, self._now + draw.randrange(2 * HORIZON_US)]))

    def _check_slots(self, lane: Lane, answer: LaneReservation, wanted: int, floors_us: list[int]) -> None:
        assert answer.count <= wanted
        assert answer.count or answer.again_us > self._now + HORIZON_US
        assert answer.again_us >= max([self._now, *floors_us, *answer.starts_us])
        rows = zip(answer.starts_us, answer.untils_us, answer.slots, costs_of(answer, lane))
        for start_us, until_us, row, cost in rows:
            assert max(self._now, *floors_us) <= start_us
            assert start_us <= self._now + HORIZON_US or max(cost) > 1
            ends = [LAST_US] * (not any(cost))
            for bucket, floor_us, us, units in zip(lane, floors_us, row, cost):
                limit, reach_us = bucket.limit, (max(bucket.limit.burst, units) - 1) * bucket.limit.whole_us
                if not units:
                    continue
                if isinstance(limit.window, Sliding):
                    assert us == start_us
                    ends.append(start_us + int(limit.grace_s * 1e6))
                    continue
                if limit.window:
                    begin_us, end_us = window_us(limit, start_us)
                    assert (us, start_us < end_us - GUARD_US) == (begin_us, True)
                    ends.append(end_us - GUARD_US // 2)
                    continue
                assert floor_us <= us <= start_us - (units - 1) * limit.whole_us
                ends.append(min(start_us, us + reach_us) + int(limit.grace_s * 1e6))
                assert ends[-1] - start_us >= LEAST_USE * int(limit.grace_s * 1e6)
            assert until_us == min(ends)

    def _check_states(self, lane: Lane, answer: LaneReservation) -> None:
        """All limits of a lane have booked what the slots cost, or none; a refused call has changed nothing."""
        after = self._lanes.fields(*self._buckets)
        columns = zip(*costs_of(answer, lane)[: answer.count])
        units = {bucket.name: sum(column) for bucket, column in zip(lane, columns)}
        for bucket, before, now, log in zip(self._buckets, self._states, after, self._logs):
            if count := units.get(bucket.name, 0):
                assert int(now["given"]) - int(before.get("given", 0)) == count
                assert int(now["seq"]) > int(before.get("seq", 0))
                assert now.get("holes", "").count(":") <= MOST_RANGES
            else:
                assert now in (before, after_step(before, log, self._now)), "a refused call has changed a state"

    def _check_windows(self, lane: Lane, answer: LaneReservation) -> None:
        """Each slot is booked in its window and no other; the window booked longest ago may be forgotten."""
        before = {bucket.name: parse_windows(state) for bucket, state in zip(self._buckets, self._states)}
        for index, bucket in enumerate(lane):
            if isinstance(bucket.limit.window, Calendar) and answer.count:
                after, expected = self._lanes.windows(bucket), Counter(before[bucket.name])
                for row, cost in zip(answer.slots, costs_of(answer, lane)):
                    if cost[index]:
                        expected[row[index]] += cost[index]
                assert after == {begin_us: expected[begin_us] for begin_us in after}
                begin_us = window_us(bucket.limit, self._seen_us)[0]
                over = [it for it in expected if it < begin_us]
                assert all(it in over for it in expected.keys() - after.keys())
                is_booked = any(cost[index] for cost in costs_of(answer, lane)[: answer.count])
                most_over = MOST_WINDOWS - 1 if is_booked else len(over)
                assert len(after) == len(expected) - max(0, len(over) - most_over)

    def _model_logs(self, lane: Lane) -> dict[str, ModelLog]:
        """The log of each sliding limit of a lane, as it was before."""
        before = dict(zip((bucket.name for bucket in self._buckets), zip(self._states, self._logs)))
        return {
            bucket.name: ModelLog.of(*before[bucket.name], self._now, bucket.limit)
            for bucket in lane
            if isinstance(bucket.limit.window, Sliding)
        }

    def _log(self, bucket: Bucket) -> Log:
        """That of a limit before the step."""
        return next(log for it, log in zip(self._buckets, self._logs) if it.name == bucket.name)

    def _check_logs(self, lane: Lane, answer: LaneReservation) -> None:
        """Each slot is in the log, nothing else has come, and only what has expired is gone."""
        models = self._model_logs(lane)
        for index, bucket in enumerate(lane):
            if model := models.get(bucket.name):
                units = [cost[index] for cost in costs_of(answer, lane)[: answer.count]]
                for row, count in zip(answer.slots, units):
                    model.book(row[index], bucket.limit, count)
                self._compare_log(bucket, model if any(units) else None)

    def _compare_log(self, bucket: Bucket, model: ModelLog | None) -> None:
        """The log of a limit is that of the model; without one, that of before."""
        (log,), (state,) = self._lanes.logs(bucket), self._lanes.fields(bucket)
        if model is None:
            assert log == self._log(bucket)
            return
        assert log == model.entries
        assert (int(state["used"]), int(state["last"])) == (model.used, model.last_us)

    def _has_room(self, lane: Lane) -> bool:
        """Whether a lane that has no smooth limit can start now."""
        known = {bucket.name: parse_windows(state) for bucket, state in zip(self._buckets, self._states)}
        owes = {bucket.name: owed_of(state) for bucket, state in zip(self._buckets, self._states)}
        logs = self._model_logs(lane)

        def has_room(bucket: Bucket) -> bool:
            limit = bucket.limit
            if isinstance(limit.window, Sliding):
                return logs[bucket.name].used < limit.burst
            if limit.window is None or self._now >= window_us(limit, self._now)[1] - GUARD_US:
                return False
            if owes[bucket.name]:
                return False
            return known[bucket.name].get(window_us(limit, self._now)[0], 0) < limit.burst

        return all(map(has_room, lane))

    def _give_back(self) -> None:
        if not self._in_hand:
            return
        held = self._in_hand.pop(self._draw.randrange(len(self._in_hand)))
        models = self._model_logs(held.lane)
        taken = self._lanes.give_back(held.lane, held.reservation, self._now)
        after = dict(zip((bucket.name for bucket in self._buckets), self._lanes.fields(*self._buckets)))
        before = dict(zip((bucket.name for bucket in self._buckets), self._states))
        for index, (bucket, count) in enumerate(zip(held.lane, taken)):
            in_hand = slice(held.reservation.used, held.reservation.count)
            costs = [cost[index] for cost in costs_of(held.reservation, held.lane)[in_hand]]
            assert 0 <= count <= sum(costs)
            rows = zip(held.reservation.slots[in_hand], costs)
            slots_us = [us for row, units in rows for us in [row[index]] * units]
            if isinstance(bucket.limit.window, Calendar):
                booked = Counter(parse_windows(before[bucket.name]))
                booked.subtract(parse_windows(after[bucket.name]))
                assert sum(booked.values()) == count
                assert not booked - Counter(slots_us)
            if model := models.get(bucket.name):
                stepped = after_step(before[bucket.name], self._log(bucket), self._now)
                is_ours = not model.is_missing and int(stepped["born"]) <= held.reservation.seq
                assert count == (model.take_back(slots_us) if is_ours else 0)
                self._compare_log(bucket, model if count else None)
            if count:
                assert int(before[bucket.name]["given"]) - int(after[bucket.name]["given"]) == count
            else:
                stepped = after_step(before[bucket.name], self._log(bucket), self._now)
                assert after[bucket.name] in (before[bucket.name], *([stepped] if bucket.name in models else []))
        is_full = any(after[bucket.name].get("holes", "").count(":") == MOST_RANGES for bucket in held.lane)
        has_quota = any(bucket.limit.window for bucket in held.lane)  # which cannot tell that it is a repeat
        if self._draw.random() < 0.3 and not is_full and not has_quota:  # or the oldest holes are lost, these perhaps
            assert not any(self._lanes.give_back(held.lane, held.reservation)), "taken back twice"

    def _reserve_plain(self) -> None:
        draw, now = self._draw, self._now
        bucket = draw.choice([bucket for bucket in self._buckets if not bucket.limit.window])
        answer = self._lanes.reserve_plain(now, bucket, draw.choice([1, 3, 10]), "old", self._override(bucket))
        answer.used = draw.choice([answer.count, draw.randrange(answer.count + 1)])
        for index in range(answer.used):
            start_us = max(now, answer.slot_us(index))
            until_us = max(now, int(slots(answer)[index])) + int(bucket.limit.grace_s * 1e6)
            self._start((bucket,), start_us, until_us, is_plain=True)
        if answer.left:
            self._plain.append((bucket, answer))

    def _give_back_plain(self) -> None:
        if self._plain:
            bucket, reservation = self._plain.pop()
            self._lanes.give_back_plain(self._now, bucket, reservation)

    def _lose(self) -> None:
        lost = self._buckets if self._draw.random() < 0.5 else [self._draw.choice(self._buckets)]
        lose = self._lanes.lose
        sliding = [bucket for bucket in lost if isinstance(bucket.limit.window, Sliding)]
        if sliding and self._draw.random() < 0.6:  # a part of a state is lost
            lost, lose = sliding, self._draw.choice([self._lanes.lose_hash, self._lanes.lose_log])
        lose(*lost)
        for bucket in lost:
            self._count_anew(bucket, self._now)
            if lose != self._lanes.lose_log:
                self._offs.pop(bucket.name, None)
        for held in self._in_hand:
            held.is_lost = held.is_lost or any(bucket.name in held.names for bucket in lost)
        self._in_hand = [held for held in self._in_hand if not held.is_lost or held.reservation.seq <= self._now]

    def _count_anew(self, bucket: Bucket, born: float) -> None:
        """A limit has forgotten what was booked. If slots in hand may come back to what it knows next, both count."""
        quota = self._quotas.get(bucket.name)
        if quota and any(held.reservation.seq >= born for held in self._in_hand if bucket.name in held.names):
            quota.eras += 1
        else:
            self._judge(bucket.name)

    def _go_to_an_edge(self, limit: Limit) -> None:
        """Time passes until shortly before a window ends, or just then."""
        end_us = window_us(limit, self._now)[1]
        before_us = self._draw.choice([0, 1, GUARD_US - 1, GUARD_US, GUARD_US + 1, 2 * GUARD_US, 200_000])
        self._now = max(self._now, end_us - before_us)

    def _go_to_a_slot(self, bucket: Bucket) -> None:
        """Time passes until shortly before the oldest entry of a log leaves it, or just then."""
        (state,), (log,) = self._lanes.fields(bucket), self._lanes.logs(bucket)
        if "shift" in state and log:
            leaves_us = log[0][0] + bucket.limit.span_us - int(state["shift"])
            self._now = max(self._now, leaves_us - self._draw.choice([-1000, -1, 0, 1, HORIZON_US, HORIZON_US + 1]))

    def _step_back(self) -> None:
        """Slots in hand of smooth and sliding limits are missed. Smooth ones that notice the step count anew.

        Fixed limits go on counting in the windows that they know, and sliding ones as if the clock had not stepped.
        """
        # The next state begins before their serials, and would take them for its own: that is in the documentation.
        self._in_hand = [held for held in self._in_hand if not held.is_lost]
        before = self._now
        self._now -= self._draw.choice([self._draw.randrange(200_000), self._draw.randrange(10**7)])
        stepped_us, self._stepped_us = self._stepped_us, self._stepped_us + before - self._now
        for bucket, state in zip(self._buckets, self._states):
            if isinstance(bucket.limit.window, Sliding):
                quota = self._quotas.get(bucket.name)
                if isinstance(quota, SlidingWitness):
                    quota.starts_us = [start_us for start_us in quota.starts_us if start_us <= before + stepped_us]
                continue
            if isinstance(bucket.limit.window, Calendar):
                latest_us = self._latest_us[bucket.name] = max(before, self._latest_us[bucket.name])
                if latest_us - self._now > (MOST_WINDOWS - 2) * bucket.limit.window.seconds * 10**6:
                    self._count_anew(bucket, 0)
                    self._latest_us[bucket.name] = self._now
                continue
            witness = self._witnesses.get(bucket.name, Witness())
            witness.starts_us = [start_us for start_us in witness.starts_us if start_us <= before]
            if "slot" in state and int(state["slot"]) - self._now > int(state["lead"]):
                self._judge(bucket.name)

    def _pause(self) -> None:
        name = self._draw.choice(self._buckets).name
        version, _ = self._versions.get(name, (0, 0))
        self._versions[name] = version + 1, max(0, self._now + self._draw.randrange(-300_000, 300_000))

    def _back_off(self) -> None:
        bucket = self._draw.choice(self._buckets)
        length_us = self._draw.choice([1, 30_000, self._draw.randrange(1, 1_000_000)])
        off_us, is_later = self._lanes.back_off(self._now, length_us, bucket)
        before_us, before_length_us = self._offs.get(bucket.name, (0, 0))
        before_us = min(before_us, self._now + before_length_us)
        assert (off_us, is_later) == (max(before_us, self._now + length_us), before_us < self._now + length_us)
        if is_later:
            self._offs[bucket.name] = off_us, length_us


def live_all(
    lanes: Lanes,
    seeds: range,
    *,
    fixed: float = 0,
    sliding: float = 0.0,
    costs: float = 0,
    backs_off: float = 0,
) -> tuple[int, int]:
    """How many starts there were in some lives, and in how many of these a window had exactly N."""
    starts = full = 0
    for seed in seeds:
        lanes.client.flushdb()
        life = Life(lanes, seed, fixed=fixed, sliding=sliding, costs=costs, backs_off=backs_off)
        life.live(80)
        starts += life.used
        full += life.spare == 0
    return starts, full
