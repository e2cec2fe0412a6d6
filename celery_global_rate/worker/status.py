"""What a worker reports about its limits: in its log at the start, and in replies to `inspect`."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Protocol
from urllib.parse import unquote

from ..declared_limits import NOT_LIMITED
from ..limits.duration import format_duration
from ..limits.limit import Limits, spelled
from ..limits.override import LimitOverride, Origin, Override, Pause
from ..limits.redis_clock import RedisClock
from ..named_buckets import HEADERS, NamedBucket, matches
from ..scheduling.lane import Lane
from ..storage.back_offs import BackOff
from .keys import has_argument

logger = logging.getLogger(__name__)

#: How many limited tasks are named at the start of a worker; the others are counted.
NAMED = 10
#: How many held tasks of a name are listed, and values of its key: those with most held, or the longest pause.
LISTED = 20
#: Of `task_routes`, what cannot be known.
FUNCTIONS = "task_routes has a function: a rate_limit that it returns has no effect"


class OverridesInForce(Protocol):
    """What is read of operators' overrides."""

    def get(self, name: str) -> Override | None:
        """The override of a bucket."""


def announce(
    declared: Mapping[str, Limits],
    named: Collection[str],
    unlimited: set[str],
    overrides: OverridesInForce,
    now_us: float,
) -> None:
    """Log what is limited, and what operators have set.

    Args:
        declared: what each task and named bucket declares.
        named: the named buckets among them, which `announce_named` logs.
        unlimited: the tasks among them that have their own strategy.
        overrides: what operators have set for them.
        now_us: the Redis clock, epoch us.
    """
    names = sorted(name for name, limits in declared.items() if limits and name not in unlimited and name not in named)
    for name in names[:NAMED]:
        logger.info("global-rate: %s at %s", name, spelled(declared[name]))
    if not names and not named:
        logger.info("global-rate: no task has a limit")
    elif len(names) > NAMED:
        logger.info("global-rate: and %d more", len(names) - NAMED)
    for name in sorted(unlimited):
        logger.warning("global-rate: %s declares %s and is %s", name, spelled(declared[name], "no limit"), NOT_LIMITED)
    for name in sorted(declared):
        if override := overrides.get(name):
            if limit_override := override.limit_override_at(now_us):
                _announce_limit(name, declared[name], limit_override, now_us)
            if pause := override.pause_at(now_us):
                _announce_pause(name, pause, now_us)


def announce_named(named: Collection[NamedBucket], tasks: Mapping[str, Any]) -> None:
    """Log what each named bucket is for, and warn of what it names in vain.

    Args:
        named: the named buckets.
        tasks: all tasks here, by their names.
    """
    for bucket in named:
        logger.info("global-rate: bucket %s", bucket)
        if bucket.is_route:
            logger.info(
                "global-rate: that is the rate_limit of queue %s in task_routes, as if global_rate_buckets had %r: %r",
                bucket.name,
                bucket.name,
                {"rate": str(bucket.limits[0]), "queues": [bucket.name]},
            )
    for text in in_vain(named, tasks):
        logger.warning("global-rate: %s", text)


def in_vain(named: Collection[NamedBucket], tasks: Mapping[str, Any]) -> Iterator[str]:
    """What named buckets say to no effect: patterns that match no task, and keys and costs that tasks do not have."""
    for bucket in named:
        for pattern in bucket.tasks:
            if not any(matches(task, pattern) for task in tasks):
                yield f"bucket {bucket.name}: no task of this application matches {pattern!r}"
        for argument, effect in ((bucket.key, "such tasks share one bucket"), (bucket.cost, "such tasks cost 1")):
            if not isinstance(argument, str) or argument.startswith(HEADERS):
                continue
            covered = [name for name in sorted(tasks) if bucket.covers(name, None)]
            if without := [name for name in covered if not has_argument(tasks[name], argument)]:
                names = ", ".join(without[:NAMED])
                yield f"bucket {bucket.name}: {names} has no argument {argument}: {effect}"


def announce_routes(has_functions: bool) -> None:
    """Log what cannot be known of `task_routes`."""
    if has_functions:
        logger.info("global-rate: %s", FUNCTIONS)


def _announce_limit(name: str, declared: Limits, limit_override: LimitOverride, now_us: float) -> None:
    rate, until_us, here = limit_override.rate, limit_override.until_us, spelled(declared)
    end = "" if until_us is None else f", for another {format_duration((until_us - now_us) / 1e6)}"
    if misfit := limit_override.misfit(declared):
        logger.warning(
            "global-rate: %s declares %s, and %s was set for it: %s, which has no effect until "
            "`celery global-rate set %s` or `reset` writes another override",
            name,
            here,
            rate,
            misfit,
            name,
        )
        return
    logger.info("global-rate: %s is limited to %s %s%s", name, rate, describe(limit_override.origin, now_us), end)
    if limit_override.declared != here:
        logger.warning(
            "global-rate: %s now declares %s instead of %s, which has no effect: %s was set, "
            "and stays in force until `celery global-rate reset %s`",
            name,
            here,
            limit_override.declared,
            rate,
            name,
        )


def _announce_pause(name: str, pause: Pause, now_us: float) -> None:
    by = describe(pause.origin, now_us)
    if pause.until_us is None:
        logger.warning(
            "global-rate: %s is paused indefinitely %s: nothing starts until `celery global-rate resume %s`",
            name,
            by,
            name,
        )
    else:
        left = format_duration((pause.until_us - now_us) / 1e6)
        logger.info("global-rate: %s is paused for another %s %s", name, left, by)


def describe(origin: Origin, now_us: float) -> str:
    """Who set it, how long ago, and why."""
    by = f"by {origin.by} " if origin.by else ""
    why = f" ({origin.reason})" if origin.reason else ""
    return f"{by}{format_duration((now_us - origin.when_us) / 1e6)} ago{why}"


def limits(
    declared: Limits,
    override: Override | None,
    now_us: float,
    *,
    is_unlimited: bool,
    cost: int | str | None = None,
    back_offs: Sequence[BackOff] = (),
) -> dict[str, Any]:
    """The limits of a task or a named bucket, as a worker reports them to `inspect rate_limits`.

    Args:
        declared: what it declares.
        override: what operators have set for it.
        now_us: the Redis clock, epoch us.
        is_unlimited: whether the task has its own strategy.
        cost: of a named bucket, if it has one.
        back_offs: the pauses that APIs have asked for, the longest first.
    """
    answer: dict[str, Any] = {
        "declared": spelled(declared),
        "in_force": spelled(override.limits_at(now_us, declared) if override else declared),
        "source": "declared",
        "paused": False,
        **({} if cost is None else {"cost": cost}),
    }
    if is_unlimited:
        answer.update(in_force="none", source=NOT_LIMITED)
    elif override and (limit_override := override.limit_override_at(now_us)) and limit_override.fits(declared):
        answer["source"] = limit_override.origin.source
        answer.update(_origin_facts(limit_override.origin, now_us), until_s=_left_s(limit_override.until_us, now_us))
    if override and (pause := override.pause_at(now_us)):
        answer["paused"] = _origin_facts(pause.origin, now_us) | {"until_s": _left_s(pause.until_us, now_us)}
    if back_offs:
        answer["backs_off"] = [
            {
                **({} if it.value is None else {"key": unquote(it.value)}),
                "why": it.why,
                "until_s": round(max(0.0, it.until_us - now_us) / 1e6, 1),
            }
            for it in back_offs[:LISTED]
        ]
    return answer


def _origin_facts(origin: Origin, now_us: float) -> dict[str, Any]:
    return {"by": origin.by, "reason": origin.reason, "age_s": round((now_us - origin.when_us) / 1e6)}


def _left_s(until_us: int | None, now_us: float) -> int | None:
    return None if until_us is None else round((until_us - now_us) / 1e6)


def held(lanes: Collection[Lane], clock: RedisClock, now: float) -> dict[str, Any]:
    """What is held for the limits of one name, as a worker reports it to `inspect rate_held`.

    Args:
        lanes: those that wait for them.
        clock: the worker's view of the Redis clock.
        now: monotonic seconds.
    """
    expected = []
    for lane in lanes:
        opens = lane.opens(clock)
        requests = list(islice(chain(lane.retrying, lane.held), LISTED))
        for request, at in zip(requests, _starts(lane, requests, clock, now)):
            expected.append((max(at, opens) - now, request))
    expected.sort(key=itemgetter(0))
    tasks = [
        {
            "id": request.id,
            "held_s": round(time.time() - request.held_since, 3),
            "expected_s": round(max(0.0, expected_s), 3) if expected_s < float("inf") else None,
        }
        for expected_s, request in expected[:LISTED]
    ]
    keys: Counter[str] = Counter()
    for lane in lanes:
        if lane.binding and lane.binding.value is not None:
            keys[lane.binding.value] += lane.held_count
    largest = {"keys": dict(keys.most_common(LISTED))} if keys else {}
    return {"count": sum(lane.held_count for lane in lanes), **largest, "tasks": tasks}


def _starts(lane: Lane, requests: Sequence[Any], clock: RedisClock, now: float) -> Iterator[float]:
    """When the next held tasks of a lane are expected to start, in monotonic seconds, one after the other.

    The first ones have the slots in hand. Each further one is expected after all that wait before it here, and as many
    in each of the workers that wait on this lane, of as many units. The windows of a quota have their slots all at
    once.
    """
    due = [clock.reached(due_us) for due_us in lane.dues_us]
    yield from due
    interval_s = lane.limit.interval_s * lane.waiting if lane.limit else 0.0
    at_once = lane.limit.burst if lane.limit and lane.limit.window else 1
    at = due[-1] if due else now if lane.limit is None else max(now, clock.reached(lane.next_us))
    before = 0
    for place, request in enumerate(requests[len(due) :]):
        units = _units(lane, request)
        if at_once == 1:
            at += units * interval_s if due or place else 0
            yield at
        else:
            yield at + (interval_s if due else 0) + before // at_once * at_once * interval_s
        before += units


def _units(lane: Lane, request: Any) -> int:
    """What a request costs of the limit that its lane waits for."""
    if lane.cost_of is None or lane.binding is None:
        return 1
    return lane.cost_of(request)[lane.buckets.index(lane.binding)]
