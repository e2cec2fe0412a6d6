"""Mutants of the Lua: small errors in the scripts, each of which the tests must notice."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import redis

FILES = (
    "slots.lua",
    "overrides.lua",
    "reserve.lua",
    "give_back.lua",
    "set_override.lua",
    "sync_overrides.lua",
    "heartbeat.lua",
    "costs.lua",
    "holes.lua",
    "reserve_lane.lua",
    "give_back_lane.lua",
    "fixed.lua",
    "sliding.lua",
    "crontab.lua",
    "back_off.lua",
)
VERBS = ("reserve", "give_back", "set_override", "sync_overrides", "heartbeat", "back_off")
LANE_VERBS = ("reserve_lane", "give_back_lane")


@dataclass(frozen=True)
class Mutant:
    """One error: in this file, that text instead of this, and what it breaks."""

    file: str
    old: str
    new: str
    why: str


def originals() -> dict[str, str]:
    """The Lua as it is."""
    lua = resources.files("celery_global_rate.storage").joinpath("lua")
    return {file: lua.joinpath(file).read_text("utf-8") for file in FILES}


def sources(mutant: Mutant) -> dict[str, str]:
    """The scripts with the error in them, by verb."""
    files = originals()
    files[mutant.file] = files[mutant.file].replace(mutant.old, mutant.new)
    shared = dict.fromkeys(VERBS, (SLOTS, OVERRIDES)) | dict.fromkeys(
        LANE_VERBS, (SLOTS, OVERRIDES, COSTS, HOLES, FIXED, SLIDING, CRONTAB)
    )
    return {verb: "\n".join(files[name] for name in (*names, f"{verb}.lua")) for verb, names in shared.items()}


def sentences(namespace: Mapping[str, Any]) -> list[Callable[[Any], None]]:
    """The tests of a module that say one thing about the scripts for lanes: those that need nothing else."""
    return [
        test
        for name, test in namespace.items()
        if name.startswith("test_")
        and list(inspect.signature(test).parameters) == ["lanes"]
        and not hasattr(test, "pytestmark")
    ]


def complaint(tests: Iterable[Callable[[Any], None]], lanes: Any) -> str | None:
    """The first of these tests that some scripts fail, or None."""
    for test in tests:
        lanes.client.flushdb()
        try:
            test(lanes)
        except (AssertionError, redis.ResponseError, ValueError, IndexError, KeyError, TypeError) as exc:
            return f"{test.__name__}: {exc}"
    return None


SLOTS, OVERRIDES, RESERVE, GIVE_BACK, SET, SYNC, HEARTBEAT, COSTS, HOLES = FILES[:9]
RESERVE_LANE, GIVE_BACK_LANE, FIXED, SLIDING, CRONTAB, BACK_OFF = FILES[9:]
MUTANTS = [
    # slots.lua
    Mutant(SLOTS, "local PS_PER_US = 1000000", "local PS_PER_US = 1000", "picoseconds taken for nanoseconds"),
    Mutant(SLOTS, "return string.format('%.0f', number)", "return tostring(number)", "14 digits are kept"),
    Mutant(SLOTS, "return time[1] * 1000000 + time[2]", "return time[1] * 1000000", "the clock loses its microseconds"),
    Mutant(SLOTS, "if injected_us then return", "if false then return", "tests cannot inject the time"),
    Mutant(SLOTS, "ps = ps + count * interval.ps", "ps = ps + interval.ps", "one remainder for many intervals"),
    Mutant(SLOTS, "ps = ps + count * interval.ps", "ps = count * interval.ps", "the remainder of S is dropped"),
    Mutant(SLOTS, "count * interval.us + math.floor(ps / PS_PER_US)", "count * interval.us", "no carry"),
    Mutant(SLOTS, "math.floor(ps / PS_PER_US)", "math.ceil(ps / PS_PER_US)", "the carry is rounded up"),
    Mutant(SLOTS, "us > than_us or (us", "us >= than_us or (us", "no slot at the horizon"),
    Mutant(SLOTS, "and ps > than_ps)", "and ps >= than_ps)", "no slot at the horizon, by the remainder"),
    Mutant(SLOTS, "or (us == than_us and ps > than_ps)", "", "a remainder beyond the horizon is not seen"),
    Mutant(SLOTS, "if us - now_us > tonumber(lead) then", "if false then", "the lead is not honoured"),
    Mutant(SLOTS, "us - now_us > tonumber(lead)", "us - now_us < tonumber(lead)", "S runs along with the clock"),
    Mutant(SLOTS, "us - now_us > tonumber(lead)", "tonumber(us) > now_us", "any slot ahead is a step back"),
    Mutant(SLOTS, "us = now_us + lead\n", "us = now_us\n", "after a step back the lead is forgotten"),
    Mutant(
        SLOTS,
        "redis.call('HSET', bucket, 'slot', exact(us), 'holes', '')\n",
        "",
        "a refused call does not write the step",
    ),
    Mutant(SLOTS, "tonumber(us), tonumber(ps)", "tonumber(us), 0", "the remainder of S is not read"),
    Mutant(SLOTS, "after(now_us, 0, 1 - limit.burst, limit)", "after(now_us, 0, -limit.burst, limit)", "burst + 1"),
    Mutant(SLOTS, "1 - limit.burst", "2 - limit.burst", "burst - 1: the first slot of a full bucket is late"),
    Mutant(
        SLOTS,
        "if not us then return full_us, full_ps, floor_us end",
        "if not us then return now_us, 0, floor_us end",
        "no burst",
    ),
    Mutant(SLOTS, "us, ps = after(us, ps, 1, limit)", "us, ps = after(us, ps, 0, limit)", "a slot given out twice"),
    Mutant(
        SLOTS,
        "if is_later(full_us, full_ps, us, ps) then return full_us, full_ps, floor_us end",
        "",
        "max() against a full bucket is dropped",
    ),
    Mutant(SLOTS, "is_later(full_us, full_ps, us, ps)", "is_later(us, ps, full_us, full_ps)", "min instead of max"),
    Mutant(SLOTS, "'slot_ps', exact(ps)", "'slot_ps', '0'", "the remainder is not written"),
    Mutant(SLOTS, "exact(math.max(0, us - now_us))", "'0'", "lead is not written"),
    Mutant(SLOTS, "math.max(0, us - now_us)", "us - now_us", "a lead below 0: S moves when the clock steps back"),
    Mutant(SLOTS, "'seq', exact(seq), ...)", "'seq', '1', ...)", "the serial is not written"),
    # reserve.lua
    Mutant(RESERVE, "local SLOTS_PER_CALL = 1000", "local SLOTS_PER_CALL = 1001", "over a thousand slots a call"),
    Mutant(RESERVE, "local SLACK_US = 60 * 1000000", "local SLACK_US = 60 * 1000", "60 ms of slack"),
    Mutant(RESERVE, "math.min(horizon_us, tonumber(ARGV[11]))", "0", "nothing is reserved ahead"),
    Mutant(RESERVE, "math.min(horizon_us, tonumber(ARGV[11]))", "horizon_us", "a slot that is of no use"),
    Mutant(RESERVE, "math.min(horizon_us, tonumber(ARGV[11]))", "tonumber(ARGV[11])", "whatever is of use"),
    Mutant(RESERVE, "if ARGV[7] ~= '' then", "if true then", "who does not wait is counted"),
    Mutant(RESERVE, "if ARGV[7] ~= '' then", "if ARGV[7] == '' then", "who waits is not counted"),
    Mutant(RESERVE, "if first_us <= end_us then", "if first_us < end_us then", "no slot exactly at the horizon"),
    Mutant(RESERVE, "limit.us + limit.ps / PS_PER_US", "limit.us + 1", "the interval is rounded up"),
    Mutant(RESERVE, "/ interval_us) + 2)", "/ interval_us) + 1)", "a quotient just below a whole number"),
    Mutant(RESERVE, "/ interval_us) + 2)", "/ interval_us))", "one slot too few"),
    Mutant(RESERVE, "after(first_us, first_ps, free - 1, limit)", "after(first_us, first_ps, free, limit)", "one less"),
    Mutant(RESERVE, "if not is_later(us, ps, end_us, 0) then break end", "break", "no walk back: beyond the horizon"),
    Mutant(RESERVE, "    free = free - 1\n", "    free = free - 2\n", "walks back too far"),
    Mutant(RESERVE, "patience_us + 2 * horizon_us", "patience_us", "workers that sleep longest are forgotten"),
    Mutant(RESERVE, "redis.call('ZREM', waiters, ARGV[7])\n", "", "the caller counts twice"),
    Mutant(SLOTS, "'-inf', exact(now_us))", "'-inf', '(' .. exact(now_us))", "forgotten a microsecond late"),
    Mutant(SLOTS, "redis.call('ZREMRANGEBYSCORE', workers, '-inf', exact(now_us))\n", "", "nobody is ever forgotten"),
    Mutant(
        SLOTS,
        "redis.call('ZREMRANGEBYSCORE', workers, '(' .. exact(now_us + longest_us), '+inf')\n",
        "",
        "waiters of a later clock stay for as long as it stepped",
    ),
    Mutant(SLOTS, "'(' .. exact(now_us + longest_us)", "exact(now_us + longest_us)", "patience is a worker's own"),
    Mutant(RESERVE, "forget(waiters, now_us, longest_us)\n", "", "waiters count forever"),
    Mutant(RESERVE, "redis.call('ZCARD', waiters) + 1", "redis.call('ZCARD', waiters)", "the caller does not count"),
    Mutant(RESERVE, "free, math.max(1, math.floor(2 * free / waiting)))", "free)", "no share"),
    Mutant(RESERVE, "math.max(1, math.floor(2 * free / waiting))", "math.floor(2 * free / waiting)", "nobody gets one"),
    Mutant(RESERVE, "math.floor(2 * free / waiting)", "math.ceil(2 * free / waiting)", "the share is rounded up"),
    Mutant(RESERVE, "math.floor(2 * free / waiting)", "math.floor(free / waiting)", "once the share"),
    Mutant(RESERVE, "math.min(wanted, free, ", "math.min(wanted, ", "a slot beyond the horizon, since one at least"),
    Mutant(RESERVE, "math.min(wanted, free, ", "math.min(free, ", "more than wanted"),
    Mutant(RESERVE, "if count > 0 then", "if true then", "a refused call writes"),
    Mutant(RESERVE, "count - 1, limit)  -- the", "count, limit)  -- the", "S is a slot ahead"),
    Mutant(RESERVE, "next_us = after(us, ps, 1, limit)", "next_us = us", "a worker waits for the slot it has"),
    Mutant(RESERVE, "or 0) + 1, now_us)", "or 0), now_us)", "two bookings in a microsecond share a serial"),
    Mutant(RESERVE, "+ 1, now_us)\n", "+ 1, 0)\n", "a serial comes again after the loss of the key"),
    Mutant(RESERVE, "after(us, ps, limit.burst, limit)", "after(us, ps, 1, limit)", "expiry without the burst"),
    Mutant(RESERVE, "math.max(SLACK_US, 2 * horizon_us)", "SLACK_US", "expiry within a long horizon"),
    Mutant(RESERVE, "horizon_us)) / 1000)\n", "horizon_us)) / 1000000)\n", "expiry in seconds"),
    Mutant(RESERVE, "full_us - now_us + math.max", "full_us - us + math.max", "expiry counts from S"),
    Mutant(RESERVE, "if redis.call('PTTL', bucket) < idle_ms then", "if true then", "expiry is shortened"),
    Mutant(RESERVE, "if redis.call('PTTL'", "if count > 0 and redis.call('PTTL'", "a refused call does not prolong"),
    Mutant(RESERVE, "'PTTL', bucket) < idle_ms", "'PTTL', bucket) > idle_ms", "never expires, or too early"),
    Mutant(RESERVE, "math.max(now_us, math.min(", "(math.min(", "a worker with slots is forgotten"),
    Mutant(RESERVE, "next_us - horizon_us, now_us", "next_us, now_us", "returns a horizon late"),
    Mutant(RESERVE, "math.min(next_us - horizon_us, now_us + patience_us)", "(next_us - horizon_us)", "no patience"),
    Mutant(RESERVE, "now_us + patience_us)) + 2 * horizon_us", "now_us + patience_us))", "no time to come back"),
    Mutant(RESERVE, "exact(math.ceil(longest_us / 1000))", "exact(longest_us)", "expiry of the waiters in us"),
    Mutant(
        RESERVE, "limit.ps, count, seq, waiting, ''}", "limit.ps, wanted, seq, waiting, ''}", "answers what was wanted"
    ),
    # give_back.lua
    Mutant(GIVE_BACK, "if redis.call('HGET', bucket, 'seq') ~= ARGV[4] then", "if false then", "frees others' slots"),
    Mutant(
        GIVE_BACK, "-tonumber(ARGV[3]), interval)", "tonumber(ARGV[3]), interval)", "takes slots instead of giving back"
    ),
    Mutant(
        GIVE_BACK, "-tonumber(ARGV[3]), interval)", "1 - tonumber(ARGV[3]), interval)", "gives one slot too few back"
    ),
    Mutant(GIVE_BACK, "ps = tonumber(ARGV[2])}", "ps = 0}", "the remainder is dropped"),
    Mutant(GIVE_BACK, "tonumber(ARGV[4]) + 1)", "tonumber(ARGV[4]))", "twice is twice"),
    Mutant(GIVE_BACK, "return 0 end", "return 1 end", "says it did"),
    # overrides.lua
    Mutant(OVERRIDES, "return tonumber(version), id", "return version, id", "a text"),
    Mutant(
        OVERRIDES,
        "return version > other_version end",
        "return version < other_version end",
        "the lower override counts",
    ),
    Mutant(OVERRIDES, "return id > other_id", "return id < other_id", "the lower id counts"),
    Mutant(OVERRIDES, "return id > other_id", "return false", "of two ids whichever came first counts"),
    Mutant(OVERRIDES, "return id > other_id", "return true", "a known override is a change"),
    Mutant(
        OVERRIDES,
        "if override == '' or (stored and parse_rank(stored) and not is_higher(override, stored)) then",
        "if stored then",
        "never higher",
    ),
    Mutant(OVERRIDES, "redis.call('HSET', overrides, name, override)\n", "", "what is higher is not stored"),
    Mutant(OVERRIDES, "redis.call('HINCRBY', era, 'changes', 1)\n", "", "a change that the era does not show"),
    # reserve.lua, with an override
    Mutant(RESERVE, "if override ~= ARGV[9] then", "if false then", "slots without the override"),
    Mutant(RESERVE, "floor_us = math.max(floor_us, (select(3, parse_rank(override))))", "floor_us = 0", "no floor"),
    Mutant(RESERVE, "math.max(floor_us, (select", "math.max(0, (select", "an override makes up for an outage"),
    Mutant(RESERVE, "= now_us - tonumber(ARGV[10]), keep", "= 0, keep", "an outage saves a burst"),
    Mutant(RESERVE, "= now_us - tonumber(ARGV[10]), keep", "= now_us, keep", "no burst is ever saved"),
    Mutant(RESERVE, "if first_us ~= floor_us or count > 0 then", "if true then", "a pause keeps the bucket forever"),
    Mutant(RESERVE, "'given', count)", "'given', 1)", "a call counts for one slot"),
    Mutant(RESERVE, "0, 0, 1, override}", "0, 0, 1, ''}", "a refusal without the override"),
    Mutant(SLOTS, "if floor_us > full_us then full_us, full_ps = floor_us, 0 end\n", "", "a floor is not a floor"),
    Mutant(SLOTS, "if floor_us > full_us then", "if floor_us > now_us then", "a past floor saves a burst"),
    Mutant(SLOTS, "full_us, full_ps = floor_us, 0 end", "return floor_us, 0 end", "a floor brings slots forward"),
    Mutant(GIVE_BACK, "redis.call('HINCRBY', bucket, 'given', -tonumber(ARGV[3]))\n", "", "what came back is counted"),
    # set_override.lua
    Mutant(SET, "tonumber(before['until']) <= now_us", "false", "what was over counts as before"),
    Mutant(SET, "tonumber(before['until']) <= now_us", "true", "what has an end counts as over"),
    Mutant(SET, "if limit[key] ~= other[key] then return false end", "", "any limit is the same"),
    Mutant(SET, "'rate', 'us', 'ps', 'burst', 'until', 'declared'", "'rate', 'us', 'ps', 'burst', 'until'", "a deploy"),
    Mutant(SET, "return limit.reason == change.reason", "return true", "another reason is not noted"),
    Mutant(SET, "return limit.reason == change.reason", "return false", "the same limit is a change"),
    Mutant(SET, "local CHANGES_KEPT = 20", "local CHANGES_KEPT = 21", "one change too many"),
    Mutant(SET, "if late_us > 0 and", "if", "a clock that steps back refuses overrides"),
    Mutant(SET, "tonumber(override.when) > now_us - late_us", "false", "a late override undoes a later one"),
    Mutant(SET, "tonumber(override.when) > now_us - late_us", "true", "a late override is never written"),
    Mutant(SET, "if past_id == id then return {0, now_us, stored or ''} end", "", "each worker that hears it writes"),
    Mutant(SET, "{0, now_us, stored or ''}", "{0, now_us, ''}", "a worker that hears it again gets no override"),
    Mutant(SET, "override.when = now\n", "override.when = '1'\n", "an override without a date"),
    Mutant(SET, "before and not is_over and before.rate or 'declared'", "'declared'", "the limit before is not named"),
    Mutant(
        SET,
        "override.limit.replaced, override.limit.when = replaced, now",
        "override.limit.when = now",
        "before is lost",
    ),
    Mutant(
        SET,
        "override.limit.by, override.limit.source, override.limit.reason = change.by, change.source, change.reason\n",
        "",
        "a limit of nobody",
    ),
    Mutant(SET, "floor = change['until'] or FOREVER_US", "floor = FOREVER_US", "a pause never ends by itself"),
    Mutant(SET, "['until'] = change['until']", "['until'] = nil", "the end of a pause is not reported"),
    Mutant(SET, "override.pause, floor = nil, now", "override.pause, floor = nil, '0'", "a resume gives a burst"),
    Mutant(SET, "override.pause, floor = nil, now", "floor = now", "a pause is reported after its end"),
    Mutant(SET, "math.max(version + 1, now_us)", "now_us", "two overrides of one version"),
    Mutant(SET, "math.max(version + 1, now_us)", "version + 1", "the version is not the clock"),
    Mutant(SET, "redis.call('HSET', overrides, name, text)\n", "", "nothing is stored"),
    Mutant(SET, "redis.call('HSETNX', era, 'id', id)\n", "", "an era without an id"),
    Mutant(SET, "redis.call('HINCRBY', era, 'changes', 1)\n", "", "an override that the era does not show"),
    Mutant(SET, "redis.call('PUBLISH', ARGV[5], text .. '\\n' .. name)\n", "", "no worker hears of it"),
    Mutant(
        SET,
        "version, floor, override = last_version, exact(last_floor_us), ",
        "version, _, override = last_version, 0, ",
        "a limit ends a pause",
    ),
    # sync_overrides.lua
    Mutant(SYNC, "redis.call('HSETNX', era, 'id', ARGV[1])", "redis.call('HSET', era, 'id', ARGV[1])", "a new era"),
    Mutant(SYNC, "if redis.call('EXISTS', overrides) == 1 then", "if true then", "an era without overrides"),
    Mutant(SYNC, "if redis.call('EXISTS', overrides) == 1 then", "if false then", "an era without id"),
    Mutant(SYNC, "for index = 2, #ARGV, 2 do", "for index = 4, #ARGV, 2 do", "the first override is left out"),
    Mutant(SYNC, "redis.call('HGETALL', overrides)", "{}", "a worker learns nothing"),
    # heartbeat.lua
    Mutant(HEARTBEAT, "exact(now_us + life_us), ARGV[1])", "exact(now_us), ARGV[1])", "dead at birth"),
    Mutant(HEARTBEAT, "forget(workers, now_us, life_us)\n", "", "nobody ever dies"),
    Mutant(
        HEARTBEAT,
        "forget(workers, now_us, life_us)",
        "forget(workers, now_us, 0)",
        "the newest worker is not counted",
    ),
    Mutant(
        HEARTBEAT, "forget(workers, now_us, life_us)", "forget(workers, now_us, 1e12)", "lives on a clock of the past"
    ),
    Mutant(HEARTBEAT, "exact(math.ceil(life_us / 1000))", "exact(life_us)", "the key outlives all workers"),
]
LANE_MUTANTS = [
    # slots.lua
    Mutant(SLOTS, "exact(us), 'holes', '')", "exact(us))", "holes are kept when the clock steps back"),
    # holes.lua
    Mutant(HOLES, "local OLDEST = ", "local OLDEST = 1 + ", "A is too large by D"),
    Mutant(HOLES, "(burst - 1) * interval_us, math", "burst * interval_us, math", "burst + 1"),
    Mutant(HOLES, "(burst - 1) * interval_us, math", "0, math", "no burst"),
    Mutant(HOLES, "now_us - limit.reach_us - limit.age_us", "now_us - limit.reach_us", "no hole of age A"),
    Mutant(HOLES, "us + math.min(1, ps)", "us", "S is rounded down"),
    Mutant(HOLES, "if tonumber(interval) ~= interval_us then", "if not interval then", "holes of another interval"),
    Mutant(HOLES, "MOST_RANGES = 16", "MOST_RANGES = 17", "one range too many"),
    Mutant(
        HOLES,
        "for index = math.max(1, #ranges - MOST_RANGES + 1), #ranges do",
        "for index = 1, math.min(#ranges, MOST_RANGES) do",
        "the newest ranges are lost",
    ),
    Mutant(HOLES, "exact(ranges[index].us) ..", "ranges[index].us ..", "14 digits are kept of a hole"),
    Mutant(HOLES, "math.max(range.us, low_us) then", "range.us then", "holes older than A"),
    Mutant(
        HOLES,
        "local newest_us = math.min(us - T, last_us)",
        "local newest_us = us - T",
        "what lies behind a range is taken for a hole",
    ),
    Mutant(
        HOLES, "if us <= last_us then return", "if us <= last_us + T then return", "a slot behind a range is a hole"
    ),
    Mutant(HOLES, "us > t_us and older_us or us", "us", "a start waits for a later hole where an older one is of use"),
    Mutant(HOLES, "us > t_us and older_us or us", "older_us or us", "an old hole before one within reach"),
    Mutant(
        HOLES,
        "local first_us = math.max(t_us - reach_us, limit.floor_us)",
        "local first_us = t_us - reach_us",
        "burst from before the floor",
    ),
    Mutant(HOLES, "limit.age_us, limit.floor_us)\n  if", "limit.age_us)\n  if", "holes from before the floor"),
    Mutant(
        HOLES,
        "if next_us + span_us > t_us then return next_us + span_us, next_us, next_us end",
        "",
        "S + T is not waited for",
    ),
    Mutant(
        HOLES,
        "local us = math.max(next_us, low_us)",
        "local us = low_us",
        "a limit of one lane forgets S",
    ),
    Mutant(HOLES, "if us - T >= low_us then return t_us", "if true then return t_us", "older than A, in step"),
    Mutant(
        HOLES,
        "if us + span_us - t_us <= limit.slack_us then",
        "if true then",
        "a start waits at the cost of the others",
    ),
    Mutant(
        HOLES, "if us + span_us - t_us <= limit.slack_us then", "if false then", "no start waits for a slot in step"
    ),
    Mutant(HOLES, "    fill(limit, us, cost)\n", "", "a hole is not removed"),
    Mutant(
        HOLES, "local behind = range.count - before - cost", "local behind = range.count - before", "a hole too many"
    ),
    Mutant(
        HOLES, "{us = us + cost * T, count = behind}", "{us = us, count = behind}", "the slot booked is a hole still"
    ),
    Mutant(HOLES, "      range.count = before\n", "", "a range is not cut"),
    Mutant(HOLES, "  if limit.is_crossed then\n", "  if true then\n", "a limit of one lane keeps holes"),
    Mutant(HOLES, "  if limit.is_crossed then\n", "  if false then\n", "no holes are kept"),
    Mutant(
        HOLES,
        "math.floor((us - math.max(limit.next_us",
        "math.ceil((us - math.max(limit.next_us",
        "a hole closer than T to S",
    ),
    Mutant(HOLES, "(limit.next_us or 0, limit.floor_us, limit", "(limit.next_us or 0, limit", "holes before the floor"),
    Mutant(
        HOLES, "(limit.next_us or 0, limit.floor_us, limit", "(limit.last_us or 0, limit.floor_us, limit", "S is a hole"
    ),
    Mutant(
        HOLES,
        "us < last_us + interval_us then return false end",
        "false then return false end",
        "overlap is not checked",
    ),
    Mutant(HOLES, "if end_us > range.us and", "if us >= range.us and", "overlap with the hole behind"),
    Mutant(HOLES, "us < last_us + interval_us then", "us <= last_us then", "overlap with the hole before"),
    Mutant(HOLES, "before.us + before.count * interval_us == us", "before.us < us", "a gap in a range is lost"),
    Mutant(
        HOLES,
        "elseif behind and behind.us == end_us then",
        "elseif behind then",
        "a gap in a range is lost, the other way",
    ),
    Mutant(HOLES, "table.remove(ranges, place)", "", "joined ranges overlap"),
    Mutant(HOLES, "table.insert(ranges, place,", "table.insert(ranges,", "ranges in no order"),
    # reserve_lane.lua
    Mutant(RESERVE_LANE, "SLOTS_PER_CALL = 100", "SLOTS_PER_CALL = 101", "over a hundred slots a call"),
    Mutant(RESERVE_LANE, "math.min(now_us + horizon_us, last_us)", "now_us + horizon_us", "slots that are of no use"),
    Mutant(RESERVE_LANE, "math.min(now_us + horizon_us, last_us)", "last_us", "all slots that are of use"),
    Mutant(RESERVE_LANE, "now_us + tonumber(ARGV[7])", "now_us", "no slot ahead is of use"),
    Mutant(RESERVE_LANE, "count < wanted and t_us > last_us", "false", "a costly slot that is of no use"),
    Mutant(RESERVE_LANE, "count < wanted and t_us > last_us", "t_us > last_us", "the next costly slot is told late"),
    Mutant(RESERVE_LANE, "if worker ~= '' then", "if true then", "who does not wait is counted in a lane"),
    Mutant(
        RESERVE_LANE,
        "      limit.window.book(limit, us, units)\n",
        "      if index > 1 then limit.window.book(limit, us, units) end\n",
        "one limit not booked",
    ),
    Mutant(HOLES, "math.min(t_us, us + reach_of(limit, cost))", "t_us", "the age does not count for the end"),
    Mutant(RESERVE_LANE, "math.min(until_us, limit", "math.max(0, limit", "the last limit sets the end"),
    Mutant(RESERVE_LANE, "if count == wanted or again_us > end_us then", "if count == wanted then", "no horizon"),
    Mutant(RESERVE_LANE, "or again_us > end_us then", "or again_us >= end_us then", "no slot at the horizon"),
    Mutant(RESERVE_LANE, "> 2 * (free", "> 3 * (free", "thrice the fair share"),
    Mutant(RESERVE_LANE, "2 * (free + limit.units)", "2 * free", "the share shrinks"),
    Mutant(RESERVE_LANE, "if count > 0 then\n    local", "if true then\n    local", "no slot at all where many wait"),
    Mutant(RESERVE_LANE, "math.max(seq, limit.seq + 1)", "math.max(seq, limit.seq)", "the serial does not grow"),
    Mutant(HOLES, "limit.grid or seq", "seq", "each booking begins a new grid"),
    Mutant(HOLES, "limit.grid or seq", "limit.grid or 0", "no grid is ever new"),
    Mutant(RESERVE_LANE, "'given', exact(limit.units))", "'given', 1)", "one given for many"),
    Mutant(
        RESERVE_LANE,
        "if start_us > latest_us then binds, latest_us",
        "if true then binds, latest_us",
        "the last limit binds",
    ),
    Mutant(
        RESERVE_LANE,
        "slots[index], latest_us = us, math.max(latest_us, start_us)",
        "slots[index] = us if start_us > latest_us then binds, latest_us = index, start_us end",
        "who moved the start last binds",
    ),
    Mutant(RESERVE_LANE, "while latest_us > from_us and", "while false and", "the start is not looked at again"),
    Mutant(RESERVE_LANE, "if override ~= known then", "if false then", "a higher override is not told"),
    Mutant(RESERVE_LANE, "    redis.call('ZREM', limit.waiters, worker)\n", "", "a worker counts twice"),
    Mutant(RESERVE_LANE, "    forget(limit.waiters, now_us, longest_us)\n", "", "nobody is forgotten"),
    Mutant(RESERVE_LANE, "if redis.call('PTTL', key) < idle_ms then", "if true then", "expiry shortened"),
    Mutant(HOLES, "limit.next_us + reach_of(limit, limit.largest or 1)", "limit.next_us", "expiry without the burst"),
    Mutant(
        RESERVE_LANE, "math.min(again_us - horizon_us, now_us + patience_us)", "again_us - horizon_us", "no patience"
    ),
    Mutant(RESERVE_LANE, "redis.call('PEXPIRE', limit.waiters", "redis.call('PTTL', limit.waiters", "no expiry"),
    # give_back_lane.lua
    Mutant(HOLES, "and grid <= seq", "", "slots of an older grid are taken back"),
    Mutant(HOLES, "end_us <= tonumber(last) and", "", "slots that S has not reached are taken back"),
    Mutant(GIVE_BACK_LANE, "exact(-taken[index]))", "-count)", "given shrinks by what was not taken back"),
    Mutant(GIVE_BACK_LANE, "(slot - 1) * size + index]", "(slot - 1) * size + 1]", "slots of the first limit"),
]
FIXED_MUTANTS = [
    # fixed.lua
    Mutant(FIXED, "local GUARD_US = 50000", "local GUARD_US = 0", "no guard"),
    Mutant(FIXED, "local GUARD_US = 50000", "local GUARD_US = 49000", "a guard of 49 ms"),
    Mutant(FIXED, "local MOST_OVER = 7", "local MOST_OVER = 1", "windows are dropped too early"),
    Mutant(FIXED, "local MOST_OVER = 7", "local MOST_OVER = 8", "one window too many"),
    Mutant(
        FIXED,
        "    if limit.windows[place].begin_us < limit.edges_us[1] then\n",
        "    if limit.windows[place].begin_us >= limit.edges_us[1] then\n",
        "windows that are not over are dropped",
    ),
    Mutant(FIXED, "exact(windows[index].begin_us)", "windows[index].begin_us", "14 digits are kept of a begin"),
    Mutant(FIXED, "local words = {exact(born)}", "local words = {born}", "14 digits are kept of the birth"),
    Mutant(FIXED, "limit.most - (window", "limit.most + 1 - (window", "N + 1"),
    Mutant(FIXED, "math.max(0, limit.most -", "(limit.most -", "what is used beyond N counts against the next window"),
    Mutant(FIXED, "limit.never_us = horizon_us,", "limit.never_us = 0,", "no start waits for a slot in step"),
    Mutant(FIXED, "now_us + horizon_us + 1", "now_us", "a slot is granted at e2, within the horizon"),
    Mutant(FIXED, "now_us + horizon_us + 1", "now_us + horizon_us", "a slot is granted at e2, at the horizon"),
    Mutant(
        FIXED,
        "return math.max(t_us, edges_us[3], limit.never_us), edges_us[3]",
        "return math.max(t_us, edges_us[3]), edges_us[3]",
        "a slot is granted at e2",
    ),
    Mutant(
        FIXED,
        "return math.max(t_us, edges_us[3], limit.never_us), edges_us[3]",
        "return math.max(t_us, limit.never_us), edges_us[3]",
        "the next look is at the horizon",
    ),
    Mutant(FIXED, "{edges_us[1], edges_us[2]}", "{edges_us[2]}", "e0 and e1 confused"),
    Mutant(FIXED, "{edges_us[1], edges_us[2]}", "{edges_us[1]}", "no next window"),
    Mutant(FIXED, "local start_us = math.max(t_us, begin_us)", "local start_us = t_us", "a start before its window"),
    Mutant(FIXED, "start_us < end_of(limit, begin_us) - GUARD_US and", "", "a window never ends"),
    Mutant(FIXED, "start_us < end_of(limit", "start_us <= end_of(limit", "guard - 1"),
    Mutant(FIXED, "and count_left(limit, begin_us) >= units", "", "a fixed limit allows all"),
    Mutant(
        FIXED,
        "and count_left(limit, begin_us) >= units",
        "and (t_us > limit.now_us or count_left(limit, begin_us) >= units)",
        "a fixed limit is forgotten when a smooth one moves the start",
    ),
    Mutant(
        FIXED,
        "      return start_us, begin_us, start_us\n",
        "      return start_us, edges_us[1], start_us\n",
        "booked in the first window",
    ),
    Mutant(FIXED, "if edges_us[place] <= end_us and not is_over then", "if not is_over then", "beyond the horizon"),
    Mutant(FIXED, "<= end_us and not is_over then", "<= end_us then", "what is over counts for the fair share"),
    Mutant(FIXED, "if window then table.remove(limit.windows, index) end", "", "a window is kept twice"),
    Mutant(
        FIXED,
        "  if window then table.remove(limit.windows, index) end\n",
        "  if window then window.used = window.used + 1 return end\n",
        "a window booked again is no newer",
    ),
    Mutant(
        FIXED,
        "used = (window and window.used or 0) + cost",
        "used = (window and window.used or 0)",
        "nothing is booked",
    ),
    Mutant(FIXED, "used = (window and window.used or 0) + cost", "used = cost", "one is booked of many"),
    Mutant(FIXED, "then return edges_us[2] end", "then return edges_us[3] end", "usable in the next window"),
    Mutant(
        FIXED,
        "return begin_us + edges_us[3] - edges_us[2]",
        "return edges_us[2]",
        "slots of the next window end with this one",
    ),
    Mutant(FIXED, "- GUARD_US / 2\n", "+ GUARD_US / 2\n", "usable after the end"),
    Mutant(FIXED, "- GUARD_US / 2\n", "\n", "usable to the very end"),
    Mutant(FIXED, "limit.born or seq", "seq", "born with each booking"),
    Mutant(FIXED, "limit.born or seq", "limit.born or 0", "born before all bookings"),
    Mutant(FIXED, ", 'seq', exact(seq))", ")", "the serial is not written"),
    Mutant(
        FIXED, "local full_us, length_us = edges_us[3]", "local full_us, length_us = edges_us[2]", "expiry too early"
    ),
    Mutant(FIXED, "  return full_us\n", "  return nil\n", "no expiry"),
    Mutant(FIXED, "if born and born <= seq then", "if born then", "slots from before a loss come back"),
    Mutant(FIXED, "born <= seq then", "born < seq then", "slots of the first booking do not come back"),
    Mutant(
        FIXED,
        "find_window(windows, begin_us)\n      local",
        "windows[#windows]\n      local",
        "back into the newest window",
    ),
    Mutant(
        FIXED, "find_window(windows, begin_us)\n      local", "windows[1]\n      local", "back into the oldest window"
    ),
    Mutant(
        FIXED,
        "math.min(costs[place], window and window.used or 0)",
        "window and costs[place] or 0",
        "more comes back than is booked",
    ),
    Mutant(
        FIXED, "window.used, taken = window.used - units, taken + units", "taken = taken + units", "nothing comes back"
    ),
    Mutant(FIXED, "format_windows(windows, born))", "format_windows(windows, seq))", "born again when slots come back"),
    # reserve_lane.lua, give_back_lane.lua
    Mutant(
        RESERVE_LANE,
        "      limit.window.book(limit, us, units)\n",
        "      if limit.window == smooth then limit.window.book(limit, us, units) end\n",
        "a fixed limit is not booked",
    ),
    Mutant(
        RESERVE_LANE,
        "    limit.window.store(limit, now_us, seq)\n",
        "    if limit.window == smooth then limit.window.store(limit, now_us, seq) end\n",
        "a fixed limit is not stored",
    ),
    Mutant(RESERVE_LANE, "  t_us = math.max(t_us, limit.floor_us)\n", "", "a start before a floor"),
    Mutant(GIVE_BACK_LANE, "WINDOWS[ARGV[2 + 2 * index]]", "smooth", "no fixed limit takes back"),
    Mutant(GIVE_BACK_LANE, "WINDOWS[ARGV[2 + 2 * index]]", "fixed", "no smooth limit takes back"),
]
SLIDING_MUTANTS = [
    # sliding.lua
    Mutant(SLIDING, "and not log.is_missing then", "then", "the log of a missing bucket counts"),
    Mutant(SLIDING, "not born or (tonumber(used) > 0 and not entry_at(log, 1))", "not born", "a missing log is none"),
    Mutant(SLIDING, "if log.last_us - log.shift_us - now_us > tonumber(lead) then", "if false then", "no step is seen"),
    Mutant(
        SLIDING,
        "if log.last_us - log.shift_us - now_us > tonumber(lead) then",
        "if log.last_us - log.shift_us > now_us then",
        "any slot ahead is a step back",
    ),
    Mutant(SLIDING, "log.last_us - lead - now_us, log", "log.last_us - now_us, log", "the lead counts as time passed"),
    Mutant(
        SLIDING, "log.born = log.last_us - lead - now_us, log.seq + 1", "_ = log.last_us - lead - now_us", "not born"
    ),
    Mutant(
        SLIDING,
        "    redis.call('HSET', bucket, 'shift', exact(log.shift_us), 'born', exact(log.born))\n",
        "",
        "the shift is not written",
    ),
    Mutant(
        SLIDING, "entry.us + span_us <= now_us", "entry.us + span_us - 1000 <= now_us", "an entry leaves 1 ms early"
    ),
    Mutant(SLIDING, "entry.us + span_us <= now_us", "entry.us + span_us < now_us", "an entry leaves 1 us late"),
    Mutant(
        SLIDING, "span_us <= now_us + log.shift_us do", "span_us <= now_us do", "the shift does not count for leaving"
    ),
    Mutant(
        SLIDING, "log.used, log.first = log.used - entry.slots,", "log.first, _ = log.first + 1,", "used is not reduced"
    ),
    Mutant(
        SLIDING, "if place > 1 then redis.call('LTRIM', log.key, 0, exact(1 - 2 * place)) end", "", "nothing is cut"
    ),
    Mutant(SLIDING, "exact(1 - 2 * place)) end", "exact(-1 - 2 * place)) end", "one entry too many is cut"),
    Mutant(SLIDING, "exact(1 - 2 * place)) end", "exact(3 - 2 * place)) end", "one entry too few is cut"),
    Mutant(SLIDING, "math.floor(OLDEST * grace_us)", "math.huge", "a sliding limit waits for ever for the others"),
    Mutant(
        SLIDING, "limit.place, limit.left = limit.log.first - 1, 0", "limit.place, limit.left = 0, 0", "those that left"
    ),
    Mutant(
        SLIDING, "while limit.left < units do", "while limit.left + 1 < units do", "one may start before one has left"
    ),
    Mutant(
        SLIDING,
        "return entry_at(limit.log, place) or limit.booked[place - #limit.log.entries]",
        "return limit.booked[1]",
        "the log is not read",
    ),
    Mutant(
        SLIDING,
        "  return entry.us - limit.log.shift_us + limit.span_us\n",
        "  return entry.us - limit.log.shift_us + limit.span_us - 1000\n",
        "a slot 1 ms before the oldest leaves",
    ),
    Mutant(
        SLIDING,
        "  return entry.us - limit.log.shift_us + limit.span_us\n",
        "  return entry.us + limit.span_us\n",
        "slots wait until the clock has caught up",
    ),
    Mutant(
        SLIDING,
        "  return entry.us - limit.log.shift_us + limit.span_us\n",
        "  return entry.us - limit.log.shift_us + limit.span_us - limit.grace_us\n",
        "a slot stays without D",
    ),
    Mutant(SLIDING, "math.min(cost, limit.most) - limit.most", "math.min(cost, limit.most) - limit.most - 1", "N + 1"),
    Mutant(SLIDING, "math.min(cost, limit.most) - limit.most", "math.min(cost, limit.most) - limit.most + 1", "N - 1"),
    Mutant(SLIDING, "limit.log.used + limit.count + math", "limit.log.used + math", "one call takes more than N"),
    Mutant(
        SLIDING,
        "if excess <= 0 then return t_us, t_us, t_us end",
        "if true then return t_us, t_us, t_us end",
        "it allows all",
    ),
    Mutant(
        SLIDING,
        "local start_us = math.max(t_us, when_left(limit, excess))",
        "local start_us = when_left(limit, excess)",
        "before the other limits",
    ),
    Mutant(SLIDING, "limit.free = limit.most - log.used\n", "limit.free = limit.most\n", "all N are free to share"),
    Mutant(SLIDING, "limit.free, place = limit.free + entry.slots, place + 1", "place = place + 1", "those that leave"),
    Mutant(SLIDING, "math.max(0, limit.free - limit.count)", "math.max(0, limit.free)", "the share does not shrink"),
    Mutant(SLIDING, "math.max(us + log.shift_us, log.last_us or 0)", "us + log.shift_us", "the log is in no order"),
    Mutant(
        SLIDING, "math.max(us + log.shift_us, log.last_us or 0)", "math.max(us, log.last_us or 0)", "booked unshifted"
    ),
    Mutant(
        SLIDING, "entry.us, entry.slots = us, entry.slots + units", "entry.slots = entry.slots + units", "cell, earlier"
    ),
    Mutant(SLIDING, "entry.us, entry.slots = us, entry.slots + units", "entry.us = us", "a cell is one slot"),
    Mutant(SLIDING, "      redis.call('LSET', log.key, 0, exact(booked[1].us))\n", "", "a cell at its earlier instant"),
    Mutant(SLIDING, "exact(newest[2] + booked[1].slots)", "exact(booked[1].slots)", "a cell forgets what was in it"),
    Mutant(SLIDING, "      table.remove(booked, 1)\n", "", "a cell is booked twice"),
    Mutant(SLIDING, "math.floor(newest[1] / limit.cell_us) ==", "-1 ==", "no entry is shared by two calls"),
    Mutant(
        SLIDING, "if entry and math.floor(entry.us / limit.cell_us) ==", "if entry and -1 ==", "nor by two slots of one"
    ),
    Mutant(SLIDING, "limit.count = limit.count + cost", "limit.count = 1", "one is booked of many"),
    Mutant(SLIDING, "return t_us + limit.grace_us", "return t_us + limit.grace_us + 1000", "usable 1 ms too long"),
    Mutant(SLIDING, "return t_us + limit.grace_us", "return t_us + limit.span_us", "usable for a period"),
    Mutant(
        SLIDING,
        "    redis.call('LTRIM', log.key, 1, 0)  -- of",
        "    -- of",
        "the log of a missing bucket is not cleared",
    ),
    Mutant(SLIDING, "exact(log.used + limit.count)", "exact(limit.count)", "what was used before is forgotten"),
    Mutant(SLIDING, "'last', exact(log.last_us),\n", "\n", "the last instant is not written"),
    Mutant(SLIDING, "exact(log.last_us - log.shift_us - now_us)", "'0'", "the lead is not written"),
    Mutant(SLIDING, "exact(log.born or seq)", "exact(seq)", "born with each booking"),
    Mutant(SLIDING, "exact(log.born or seq)", "exact(log.born or 0)", "born before all bookings"),
    Mutant(SLIDING, ", 'seq', exact(seq))", ")", "the serial is not written"),
    Mutant(SLIDING, "log.last_us - limit.log.shift_us + limit.span_us", "log.last_us", "expiry without the period"),
    Mutant(
        SLIDING, "return limit.log.last_us and limit.log.last_us -", "return nil and limit.log.last_us -", "no expiry"
    ),
    Mutant(
        SLIDING, "if tonumber(words[index]) < us then return entries end", "if true then return entries end", "nothing"
    ),
    Mutant(
        SLIDING, "tonumber(words[index]) < us then", "tonumber(words[index]) <= us then", "not the entry of its instant"
    ),
    Mutant(SLIDING, "if not oldest or log.born > seq then", "if not oldest then", "slots from before a loss come back"),
    Mutant(SLIDING, "log.born > seq then", "log.born >= seq then", "slots of the first booking do not come back"),
    Mutant(SLIDING, "oldest.us <= us and costs[index] or 0", "costs[index]", "a slot that has left takes another's"),
    Mutant(
        SLIDING,
        "local us = slot_us + log.shift_us",
        "local us = slot_us",
        "unshifted",
    ),
    Mutant(SLIDING, "for place = #entries, 1, -1 do", "for place = 1, #entries do", "the newest goes"),
    Mutant(SLIDING, "entry.us >= us and math.min(entry.slots, left) or 0", "left", "one before it goes"),
    Mutant(SLIDING, "math.min(entry.slots, left)", "left", "an entry below 0"),
    Mutant(
        SLIDING,
        "entry.slots, taken, left = entry.slots - units, taken + units,",
        "taken, left, _ = taken + units, left - units,",
        "nothing comes back",
    ),
    Mutant(
        SLIDING, "        redis.call('LSET', key, exact(2 * place - 1), exact(entry.slots))\n", "", "is not written"
    ),
    Mutant(SLIDING, "    if gone > 0 then redis.call('LREM', key, exact(gone), '0') end\n", "", "entries of no slots"),
    Mutant(SLIDING, "gone = gone + 2\n", "gone = gone + 1\n", "half of an entry stays"),
    Mutant(
        SLIDING,
        "    cut(log, log.first)\n    redis.call('HSET'",
        "    redis.call('HSET'",
        "what has left is in used again",
    ),
    Mutant(SLIDING, "exact(log.used - taken)", "exact(log.used)", "used is not reduced by what comes back"),
    # reserve_lane.lua, give_back_lane.lua
    Mutant(
        RESERVE_LANE,
        "      limit.window.book(limit, us, units)\n",
        "      if limit.window ~= sliding then limit.window.book(limit, us, units) end\n",
        "a sliding limit is not booked",
    ),
    Mutant(
        RESERVE_LANE,
        "limit.log_key, next_log = KEYS[next_log], next_log + 1",
        "limit.log_key = KEYS[next_log]",
        "one log",
    ),
    Mutant(RESERVE_LANE, "ipairs({limit.bucket, limit.log_key})", "ipairs({limit.bucket})", "the log never expires"),
    Mutant(GIVE_BACK_LANE, "log, next_log = KEYS[next_log], next_log + 1", "log = KEYS[next_log]", "all from one log"),
    Mutant(GIVE_BACK_LANE, "local taken, next_log = {}, size + 1", "local taken, next_log = {}, size", "not the log"),
]
COST_MUTANTS = [
    # costs.lua
    Mutant(COSTS, "for _ = 1, tonumber(count) do", "for _ = 1, 1 do", "a run is one slot"),
    Mutant(COSTS, "of_each[#of_each + 1] = tonumber(units)", "of_each[#of_each + 1] = 1", "all costs are one"),
    # holes.lua
    Mutant(HOLES, "math.max(limit.reach_us, (cost - 1) * limit.interval_us)", "limit.reach_us", "no credit for a cost"),
    Mutant(
        HOLES,
        "local reach_us, span_us = reach_of(limit, cost), (cost - 1) * T",
        "local reach_us, span_us = reach_of(limit, cost), 0",
        "it starts with its first slot",
    ),
    Mutant(HOLES, "(range.count - cost) * T", "(range.count - 1) * T", "one hole in a row is enough"),
    Mutant(
        HOLES,
        "t_us - span_us, first_us, low_us, cost)",
        "t_us, first_us, low_us, cost)",
        "it starts before its last hole",
    ),
    Mutant(HOLES, "limit.oldest_us + limit.reach_us - reach_us then", "limit.oldest_us then", "slots are booked twice"),
    Mutant(
        HOLES,
        "limit.last_us, limit.next_us = us + (cost - 1) * T, us + cost * T",
        "limit.last_us, limit.next_us = us, us + T",
        "one slot is booked",
    ),
    Mutant(HOLES, "us + reach_of(limit, cost)", "us + limit.reach_us", "it ends when its first slot does"),
    Mutant(
        HOLES, "limit.largest = math.max(cost, limit.largest or 0)", "limit.largest = nil", "expiry before it is paid"
    ),
    Mutant(HOLES, "limit.largest = tonumber(largest)", "limit.largest = nil", "expiry by the last cost"),
    Mutant(HOLES, "us + cost * interval_us\n", "us + interval_us\n", "only the first slot comes back"),
    Mutant(HOLES, "taken = taken + cost end", "taken = taken + 1 end", "one unit is counted"),
    Mutant(HOLES, "before.count + cost", "before.count + 1", "one joins the range before"),
    # fixed.lua
    Mutant(FIXED, "math.min(cost, limit.most)", "cost", "what is larger than N never starts"),
    Mutant(FIXED, "math.min(cost, limit.most)", "1", "one unit is enough"),
    Mutant(FIXED, "if cost > limit.most then limit.owed =", "if false then limit.owed =", "nothing is owed"),
    Mutant(FIXED, "(behind - 1) * limit.most", "behind * limit.most", "a window too few pays"),
    Mutant(FIXED, "owed.begin_us >= begin_us then", "owed.begin_us > begin_us then", "its own window pays as well"),
    Mutant(FIXED, "math.max(0, owed.units - units)", "owed.units", "what comes back is owed still"),
    Mutant(FIXED, "    store_owed(bucket, owed)\n", "", "it is not written"),
    Mutant(FIXED, "  store_owed(limit.bucket, limit.owed)\n", "", "what is owed is not written"),
    Mutant(FIXED, "length_us < SHORTEST_DAY_US then", "true then", "days are foretold"),
    Mutant(FIXED, "length_us < SHORTEST_DAY_US then", "false then", "no window is foretold"),
    # sliding.lua
    Mutant(
        SLIDING, "math.min(cost, limit.most) - limit.most", "cost - limit.most", "what is larger than N is an error"
    ),
    Mutant(SLIDING, "math.min(cost, limit.most) - limit.most", "1 - limit.most", "one unit is enough"),
    Mutant(SLIDING, "excess > 0 and math.max(t_us, when_left(limit, excess)) or t_us", "start_us", "not booked ahead"),
    Mutant(SLIDING, "local units, entry = math.min(cost, limit.most),", "local units, entry = cost,", "all at once"),
    Mutant(SLIDING, "us, us + limit.span_us, cost - units", "us, us, cost - units", "all at one instant"),
    Mutant(SLIDING, "while limit.left - entry.slots >= units do", "while false do", "the log is not read backwards"),
    Mutant(
        SLIDING,
        "left = entry.slots - units, taken + units, left - units",
        "left = entry.slots - units, taken + units, 0",
        "one entry",
    ),
    # reserve_lane.lua, give_back_lane.lua
    Mutant(RESERVE_LANE, "math.max(now_us, tonumber(ARGV[6]))", "now_us", "before the last slot in hand"),
    Mutant(RESERVE_LANE, "is_costly or cost[index] > 1", "false", "no large cost is granted"),
    Mutant(RESERVE_LANE, "is_costly or cost[index] > 1", "true", "any slot is granted ahead"),
    Mutant(RESERVE_LANE, "if first_us > start_us then granted_us = first_us end", "", "a window that nobody knows"),
    Mutant(RESERVE_LANE, "limit.units + cost[binds] >", "limit.units + 1 >", "the share counts slots"),
    Mutant(RESERVE_LANE, "limit.units = limit.units + units", "limit.units = limit.units + 1", "given counts slots"),
    Mutant(RESERVE_LANE, "    if limit.units > 0 then\n", "    if true then\n", "what passes a limit is written there"),
    Mutant(GIVE_BACK_LANE, "if costs[slot][index] > 0 then", "if true then", "what passed a limit comes back there"),
]
CRONTAB_MUTANTS = [
    Mutant(
        CRONTAB,
        "math.min(limit.most, limit.tokens + limit.amount)\n    if",
        "limit.tokens + limit.amount\n    if",
        "no maximum",
    ),
    Mutant(CRONTAB, "limit.tokens - limit.ahead, 0 end", "limit.tokens, 0 end", "what is booked ahead is free again"),
    Mutant(
        CRONTAB, "limit.tokens - limit.ahead, 0 end", "limit.tokens - limit.ahead, limit.ahead end", "it is paid twice"
    ),
    Mutant(CRONTAB, "for index = 1, edges do", "for index = 1, math.min(1, edges) do", "one refill for many"),
    Mutant(
        CRONTAB,
        "now_us < limit.edges_us[1] or now_us >= limit.edges_us[2]",
        "now_us >= limit.edges_us[2]",
        "ahead of now",
    ),
    Mutant(
        CRONTAB, "now_us < limit.edges_us[1] or now_us >= limit.edges_us[2]", "now_us < limit.edges_us[1]", "behind now"
    ),
    Mutant(CRONTAB, "tonumber(tokens) or most", "tonumber(tokens) or 0", "a missing bucket is empty"),
    Mutant(
        CRONTAB, "if tonumber(us) > limit.edge_us then", "if tonumber(us) >= limit.edge_us then", "an edge too many"
    ),
    Mutant(
        CRONTAB,
        "if limit.edge_us < limit.edges_us[1] then",
        "if limit.edge_us ~= limit.edges_us[1] then",
        "a step back",
    ),
    Mutant(
        CRONTAB, "limit.tokens - units + limit.amount) - limit.ahead", "limit.tokens - units + limit.amount)", "ahead"
    ),
    Mutant(CRONTAB, "math.min(cost, limit.most)", "cost", "what is larger than the maximum never starts"),
    Mutant(CRONTAB, "math.min(cost, limit.most)", "1", "one token is enough"),
    Mutant(CRONTAB, "limit.edge_us == limit.edges_us[1] and count_next", "count_next", "ahead of an earlier time"),
    Mutant(CRONTAB, "and (limit.ahead == 0 or count_next(limit, cost) >= 0)", "", "what is booked ahead is taken"),
    Mutant(
        CRONTAB,
        "for place = 1, limit.is_wrong and 0 or 2 do",
        "for place = 1, limit.is_wrong and 0 or 1 do",
        "not ahead",
    ),
    Mutant(CRONTAB, "for place = 1, limit.is_wrong and 0 or 2 do", "for place = 1, 2 do", "whoever is wrong about now"),
    Mutant(CRONTAB, "edges_us[place + 1] - GUARD_US and", "edges_us[place + 1] and", "no guard"),
    Mutant(CRONTAB, "and has_tokens(limit, place, cost) then", "then", "it allows all"),
    Mutant(CRONTAB, "return start_us, edges_us[place], start_us", "return start_us, edges_us[1], start_us", "of now"),
    Mutant(CRONTAB, "limit.tokens = limit.tokens - cost", "limit.tokens = limit.tokens - 1", "one is booked of many"),
    Mutant(CRONTAB, "limit.ahead = limit.ahead + cost", "limit.ahead = cost", "one is booked ahead of many"),
    Mutant(CRONTAB, "edges_us[1] and 2 or 3] - GUARD_US / 2", "edges_us[1] and 2 or 3]", "usable to the edge"),
    Mutant(
        CRONTAB, "edges_us[1] and 2 or 3] - GUARD_US / 2", "edges_us[1] and 2 or 2] - GUARD_US / 2", "ends before it"
    ),
    Mutant(CRONTAB, "limit.born or seq), 'seq'", "seq), 'seq'", "born with each booking"),
    Mutant(CRONTAB, "  limit.born = limit.born or seq\n", "", "no expiry"),
    Mutant(CRONTAB, "limit.when_full_us +", "limit.edges_us[2] +", "expiry too early"),
    Mutant(CRONTAB, "+ owed * limit.interval_us", "", "what is owed expires"),
    Mutant(CRONTAB, "then keep_refills(limit) end", "then end", "refills of what is owed are forgotten"),
    Mutant(CRONTAB, "and not limit.is_wrong then keep", "then keep", "whoever is wrong about now refills"),
    Mutant(CRONTAB, "or tonumber(born) > seq then", "then", "from before a loss"),
    Mutant(CRONTAB, "if edge_us == edge then", "if true then", "tokens of before a refill"),
    Mutant(
        CRONTAB,
        "tokens, taken = tokens + costs[place], taken + costs[place]",
        "taken = taken + costs[place]",
        "none come back",
    ),
    Mutant(CRONTAB, "ahead, taken = ahead - units, taken + units", "taken = taken + units", "none of those ahead"),
    Mutant(CRONTAB, "free = math.max(0, limit.tokens) end", "free = 0 end", "none are free to share"),
]

BACK_OFF_MUTANTS = [
    Mutant(SLOTS, "math.min(tonumber(off), now_us + tonumber(off_length)) or 0", "tonumber(off) or 0", "a step back"),
    Mutant(SLOTS, "return off and math.min(", "return off and math.max(", "it lasts as long again"),
    Mutant(
        SLOTS, "if not us then return nil, nil, off_us end", "if not us then return nil, nil, 0 end", "a full bucket"
    ),
    Mutant(SLOTS, "return tonumber(us), tonumber(ps), off_us", "return tonumber(us), tonumber(ps), 0", "one in use"),
    Mutant(SLOTS, "floor_us = math.max(floor_us, off_us)", "floor_us = off_us", "no other floor"),
    Mutant(SLOTS, "floor_us = math.max(floor_us, off_us)", "", "a plain limit has none"),
    Mutant(HOLES, "limit.floor_us = math.max(limit.floor_us, off_us)", "", "a crossed limit has none"),
    Mutant(FIXED, "limit.floor_us = math.max(limit.floor_us, end_of_back_off(now_us, off, off_length))", "", "fixed"),
    Mutant(
        CRONTAB, "limit.floor_us = math.max(limit.floor_us, end_of_back_off(now_us, off, off_length))", "", "crontab"
    ),
    Mutant(SLIDING, "limit.floor_us = math.max(limit.floor_us, limit.log.off_us)", "", "sliding"),
    Mutant(RESERVE_LANE, "t_us = math.max(t_us, limit.floor_us)", "t_us = math.max(t_us, floor_us)", "a lane"),
    Mutant(BACK_OFF, "now_us + tonumber(ARGV[1])", "tonumber(ARGV[1])", "an instant, not a length"),
    Mutant(BACK_OFF, "off_us = math.max(off_us, before_us[index]) end", "end", "the last one counts"),
    Mutant(BACK_OFF, "off_us - now_us, 0\n", "tonumber(ARGV[1]), 0\n", "the length of the shorter one"),
    Mutant(BACK_OFF, "or not is_end and before_us[index] < off_us then", "or index == 1 then", "one limit of several"),
    Mutant(BACK_OFF, "or not is_end and before_us[index] < off_us then", "or not is_end then", "told again and again"),
    Mutant(BACK_OFF, "if not is_end then off_us", "if true then off_us", "it cannot be ended"),
    Mutant(BACK_OFF, "is_end and before_us[index] > off_us or", "is_end or", "an end where there is nothing to end"),
    Mutant(BACK_OFF, "    is_new = 1\n", "", "nobody is told"),
    Mutant(BACK_OFF, "(length_us + SLACK_US)", "SLACK_US", "it expires early"),
    Mutant(BACK_OFF, "local SLACK_US = 60 * 1000000", "local SLACK_US = 0", "it expires with the pause"),
    Mutant(BACK_OFF, "if redis.call('PTTL', bucket) < idle_ms then", "if true then", "the state expires early"),
    Mutant(
        BACK_OFF, "exact(off_us) .. ' ' .. exact(length_us)", "exact(length_us) .. ' ' .. exact(off_us)", "mixed up"
    ),
]
