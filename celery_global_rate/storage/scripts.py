"""The Lua scripts and their calls: what goes in, what comes out, and the keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from ..limits.bucket import OWN, Bucket
from ..limits.costs import Costs, spelled
from ..limits.lane_reservation import LaneReservation
from ..limits.limit import LONGEST_FILL_US
from ..limits.redis_clock import LAST_US
from ..limits.refills import Refills
from ..limits.reservation import Reservation, SlotsInHand
from ..limits.timing import HORIZON_S, LONGEST_SLEEP_S
from ..limits.windows import Calendar, Sliding

SHARED = ("slots.lua", "overrides.lua")
FOR_LANES = (*SHARED, "costs.lua", "holes.lua", "fixed.lua", "sliding.lua", "crontab.lua")


class Script:
    """One verb in Lua, with what the verbs share before it: the arithmetic, and how overrides are ranked.

    Args:
        verb: the name of its file.
        shared: the files before it.

    Attributes:
        source: the text that Redis runs.
        sha: its SHA-1, by which Redis knows it after the first run.
    """

    def __init__(self, verb: str, shared: tuple[str, ...] = SHARED) -> None:
        lua = resources.files(__package__).joinpath("lua")
        self.source = "\n".join(lua.joinpath(name).read_text("utf-8") for name in (*shared, f"{verb}.lua"))
        self.sha = hashlib.sha1(self.source.encode()).hexdigest()


RESERVE = Script("reserve")
GIVE_BACK = Script("give_back")
RESERVE_LANE = Script("reserve_lane", FOR_LANES)
GIVE_BACK_LANE = Script("give_back_lane", FOR_LANES)
SET_OVERRIDE = Script("set_override")
SYNC_OVERRIDES = Script("sync_overrides")
HEARTBEAT = Script("heartbeat")
BACK_OFF = Script("back_off")


def bucket_key(prefix: str, name: str, window: str = OWN) -> str:
    """The key of a bucket. The prefix is a hash tag, so that all keys of a prefix live in one slot of a Cluster."""
    return f"{{{prefix}}}:limit:{name}:{window}" if window else f"{{{prefix}}}:bucket:{name}"


def waiting_key(prefix: str, name: str, window: str = OWN) -> str:
    """The key of the workers that wait on a bucket."""
    return f"{{{prefix}}}:limit-waiting:{name}:{window}" if window else f"{{{prefix}}}:waiting:{name}"


def log_key(prefix: str, name: str, window: str) -> str:
    """The key of the log of a sliding window."""
    return f"{{{prefix}}}:log:{name}:{window}"


def overrides_key(prefix: str) -> str:
    """The key of all overrides."""
    return f"{{{prefix}}}:records"


def era_key(prefix: str) -> str:
    """The key that shows whether a worker has missed an override."""
    return f"{{{prefix}}}:era"


def history_key(prefix: str, name: str) -> str:
    """The key of the last changes of a bucket."""
    return f"{{{prefix}}}:history:{name}"


def news_channel(prefix: str, database: int) -> str:
    """The channel that announces overrides (``override\\nname``), new workers (``workers\\ncount``) and pauses that an
    API has asked for (``off\\nuntil length\\nnote``).

    Redis channels do not belong to a database: the name contains it, to keep databases apart.
    """
    return f"{{{prefix}}}:news:{database}"


def members_key(prefix: str) -> str:
    """The key of the workers that live."""
    return f"{{{prefix}}}:workers"


def reserving(
    prefix: str,
    buckets: Sequence[Bucket],
    wanted: int,
    worker: str,
    overrides: Sequence[str],
    awake_us: int,
    now_us: float,
    costs: Costs | None = None,
    latest_us: int = LAST_US,
) -> tuple[Script, list[str | int]]:
    """The script for a lane, with its keys and arguments.

    It is reserve.lua for one smooth limit that no lane crosses, and of which each start takes one slot. Without the
    name of a worker, the caller is not counted among those that wait.
    """
    is_plain = len(buckets) == 1 and not buckets[0].is_crossed and not buckets[0].limit.window
    if is_plain and costs is None:
        return RESERVE, reserve_call(prefix, buckets, wanted, worker, overrides, awake_us, latest_us)
    call = reserve_lane_call(prefix, buckets, wanted, worker, overrides, awake_us, now_us, costs, latest_us)
    return RESERVE_LANE, call


def read_reservation(script: Script, answer: Sequence[Any], limits: int) -> SlotsInHand:
    """What such a script has answered.

    Raises:
        ValueError: something else has answered.
    """
    return Reservation.read(answer) if script is RESERVE else LaneReservation.read(answer, limits)


def giving_back(prefix: str, buckets: Sequence[Bucket], reservation: SlotsInHand) -> tuple[Script, list[str | int]]:
    """The script that returns what is left of a reservation of Redis, with its keys and arguments."""
    if isinstance(reservation, LaneReservation):
        return GIVE_BACK_LANE, give_back_lane_call(prefix, buckets, reservation)
    assert isinstance(reservation, Reservation)
    return GIVE_BACK, give_back_call(prefix, buckets, reservation)


def reserve_call(
    prefix: str,
    buckets: Sequence[Bucket],
    wanted: int,
    worker: str,
    overrides: Sequence[str],
    awake_us: int = LONGEST_FILL_US,
    latest_us: int = LAST_US,
) -> list[str | int]:
    """Keys and arguments of reserve.lua, after the script itself; for one bucket and its override, or an empty text."""
    (bucket,), (override,) = buckets, overrides
    name, window, limit = bucket.name, bucket.window, bucket.limit
    keys = bucket_key(prefix, name, window), waiting_key(prefix, name, window), overrides_key(prefix), era_key(prefix)
    times = int(HORIZON_S * 1e6), int(LONGEST_SLEEP_S * 1e6)
    numbers = limit.interval_us, limit.interval_ps, limit.burst, wanted, *times
    return [len(keys), *keys, *numbers, worker, name, override, awake_us, latest_us]


def give_back_call(prefix: str, buckets: Sequence[Bucket], reservation: Reservation) -> list[str | int]:
    """Keys and arguments of give_back.lua, after the script itself; for one bucket."""
    (bucket,) = buckets
    interval = reservation.interval_us, reservation.interval_ps
    return [1, bucket_key(prefix, bucket.name, bucket.window), *interval, reservation.left, reservation.seq]


def reserve_lane_call(
    prefix: str,
    buckets: Sequence[Bucket],
    wanted: int,
    worker: str,
    overrides: Sequence[str],
    awake_us: int = LONGEST_FILL_US,
    now_us: float = 0,
    costs: Costs | None = None,
    latest_us: int = LAST_US,
) -> list[str | int]:
    """Keys and arguments of reserve_lane.lua, after the script itself; an override, or an empty text, per bucket.

    The Redis clock, as the caller knows it, says which windows are meant.
    """
    keys = [overrides_key(prefix), era_key(prefix)]
    slots, after_us = (spelled(costs.of_each), costs.after_us) if costs else (wanted, 0)
    times = int(HORIZON_S * 1e6), int(LONGEST_SLEEP_S * 1e6)
    arguments: list[str | int] = [slots, *times, worker, awake_us, after_us, latest_us]
    for bucket, override in zip(buckets, overrides):
        limit, grace_us = bucket.limit, int(bucket.limit.grace_s * 1e6)
        keys += [bucket_key(prefix, bucket.name, bucket.window), waiting_key(prefix, bucket.name, bucket.window)]
        if isinstance(limit.window, Calendar):
            arguments += ["fixed", limit.burst, *limit.window.edges(now_us)]
        elif isinstance(limit.window, Refills):
            edges = limit.window.edges(now_us, limit.burst + (limit.most_owed if costs else 0))
            ahead = " ".join(map(str, (*edges.next_us, edges.full_us, limit.whole_us)))
            arguments += ["crontab", limit.burst, limit.window.amount, " ".join(map(str, edges.past)), ahead]
        elif limit.window:
            arguments += ["sliding", limit.burst, limit.span_us, limit.cell_us, grace_us]
        else:
            arguments += ["smooth", limit.whole_us, limit.burst, grace_us, int(bucket.is_crossed)]
        arguments += [bucket.name, override]
    keys += _log_keys(prefix, buckets)
    return [len(keys), *keys, *arguments]


def give_back_lane_call(prefix: str, buckets: Sequence[Bucket], reservation: LaneReservation) -> list[str | int]:
    """Keys and arguments of give_back_lane.lua, after the script itself."""
    keys = [bucket_key(prefix, bucket.name, bucket.window) for bucket in buckets]
    in_hand = slice(reservation.used, reservation.count)
    slots = [us for slot in reservation.slots[in_hand] for us in slot]
    count = spelled(reservation.costs[in_hand]) if reservation.costs else reservation.left
    keys += _log_keys(prefix, buckets)
    lengths: list[str | int] = []
    for limit in (bucket.limit for bucket in buckets):
        is_sliding = isinstance(limit.window, Sliding)
        lengths += [limit.window.kind if limit.window else "smooth", limit.span_us if is_sliding else limit.whole_us]
    return [len(keys), *keys, reservation.seq, count, len(buckets), *lengths, *slots]


def _log_keys(prefix: str, buckets: Sequence[Bucket]) -> list[str]:
    return [
        log_key(prefix, bucket.name, bucket.window) for bucket in buckets if isinstance(bucket.limit.window, Sliding)
    ]


def read_windows(text: bytes | None) -> dict[int, int]:
    """How many slots are booked in each fixed window that a bucket knows, by its begin (epoch us)."""
    pairs = (word.split(b":") for word in (text or b"").split()[1:])
    return {int(begin_us): int(used) for begin_us, used in pairs}


def read_log(words: Sequence[bytes], shift: bytes | None) -> list[tuple[int, int]]:
    """The log of sliding windows: instants (epoch us) and how many slots are booked there, the oldest first."""
    numbers = [int(word) for word in words]
    return [(us - int(shift or 0), slots) for us, slots in zip(numbers[-2::-2], numbers[::-2])]


def set_override_call(
    prefix: str, name: str, change: Mapping[str, Any], id: str, late_us: int, channel: str
) -> list[str | int]:
    """Keys and arguments of set_override.lua, after the script itself."""
    keys = overrides_key(prefix), era_key(prefix), history_key(prefix, name)
    return [len(keys), *keys, name, json.dumps(change), id, late_us, channel]


def heartbeat_call(prefix: str, worker: str, life_s: float, channel: str) -> list[str | int]:
    """Keys and arguments of heartbeat.lua, after the script itself."""
    return [1, members_key(prefix), worker, int(life_s * 1e6), channel]


def back_off_call(prefix: str, name: str, windows: Iterable[str], length_us: int, channel: str, note: str) -> list[Any]:
    """Keys and arguments of back_off.lua, after the script itself; for all limits of a name, by their windows."""
    keys = [bucket_key(prefix, name, window) for window in windows]
    return [len(keys), *keys, length_us, channel, note]


def sync_overrides_call(prefix: str, era: str, overrides: Mapping[str, str]) -> list[str | int]:
    """Keys and arguments of sync_overrides.lua, after the script itself."""
    pairs = [text for pair in overrides.items() for text in pair]
    return [2, overrides_key(prefix), era_key(prefix), era, *pairs]
