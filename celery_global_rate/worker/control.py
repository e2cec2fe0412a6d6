"""Celery's remote control: `control rate_limit` for the whole cluster, and commands of our own.

Commands are registered in every process that imports the extension, because `celery control` and `celery inspect`
must know them as well. A worker without it does what Celery does.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol

from celery.worker.control import Panel, control_command, inspect_command, nok, ok

from ..declared_limits import NOT_LIMITED
from ..limits.limit import Limits, spelled
from ..limits.override import DECLARED, Kept, parse_rates, reset, set_limits
from ..limits.timing import REPLY_TIMEOUT_S
from ..named_buckets import NamedBucket
from ..storage.blocking_store import ERRORS, BlockingStore
from ..storage.cause import cause
from . import status
from .engine import Engine
from .pidbox import Broadcast

OFF = "global-rate is off in this worker"
_celery_rate_limit = Panel.data["rate_limit"]


class LimitingStep(Protocol):
    """What the commands know of the bootstep."""

    hostname: str
    engine: Engine
    broadcast: Broadcast
    named: Mapping[str, NamedBucket]

    def declared(self, name: str) -> Limits:
        """What a task or a named bucket declares."""

    def kept(self, name: str) -> list[Kept]:
        """What stays of each limit that a task or a named bucket has or may be given when a rate is set."""

    def is_unlimited(self, name: str) -> bool:
        """Whether it is a task whose messages something else takes than Celery's own strategy."""


@control_command(  # type: ignore[untyped-decorator]
    args=[("task_name", str), ("rate_limit", str)],
    signature="<task_name> <rate_limit (e.g., 5/s | 5/m | 5/h)>",
)
def rate_limit(state: Any, task_name: str, rate_limit: Any, **kwargs: Any) -> Any:
    """Tell worker(s) to modify the rate limit for a task by type: for the whole cluster, until it is reset."""
    step = _step(state)
    if step is None:
        return _celery_rate_limit(state, task_name, rate_limit, **kwargs)
    if refusal := _refusal(step, state, task_name):
        return refusal
    try:
        limits, rates = parse_rates(rate_limit, step.kept(task_name))
    except ValueError as exc:
        return nok(f"Invalid rate limit string: {exc}")
    done = "new rate limit set successfully" if limits else "rate limit disabled successfully"
    return _change(step, task_name, set_limits(limits, rates, step.declared(task_name)), "control rate_limit", done)


@control_command(args=[("task_name", str)], signature="<task_name>")  # type: ignore[untyped-decorator]
def rate_limit_reset(state: Any, task_name: str, **kwargs: Any) -> Any:
    """Go back to the rate limit that the task declares, in the whole cluster."""
    step = _step(state)
    if step is None:
        return nok(OFF)
    if refusal := _refusal(step, state, task_name):
        return refusal
    declared = step.declared(task_name)
    return _change(step, task_name, reset(declared), "control rate_limit_reset", "rate limit reset successfully")


@inspect_command()  # type: ignore[untyped-decorator]
def rate_limits(state: Any, **kwargs: Any) -> Any:
    """Rate limits: what tasks declare, what is in force, and who has set it."""
    step = _step(state)
    if step is None:
        return nok(OFF)
    now_us = step.engine.limiter.clock.now_us(time.monotonic())
    overrides = step.engine.overrides
    costs = {name: bucket.cost for name, bucket in step.named.items()}
    return {
        name: status.limits(
            declared,
            overrides.get(name),
            now_us,
            is_unlimited=step.is_unlimited(name),
            cost=costs.get(name),
            back_offs=step.engine.session.back_offs.of(name),
        )
        for name, declared in sorted(step.engine.lanes.declared.items())
    }


@inspect_command()  # type: ignore[untyped-decorator]
def rate_held(state: Any, **kwargs: Any) -> Any:
    """Tasks held for their rate limits: how many, the first ones since when and for how long, and queues put aside."""
    step = _step(state)
    if step is None:
        return nok(OFF)
    clock, now = step.engine.limiter.clock, time.monotonic()
    lanes = defaultdict(list)
    for lane in list(step.engine.scheduler.busy):  # at once: the loop may be in another thread
        if lane.held_count:
            lanes[lane.held_by].append(lane)
    return {
        name: {**status.held(lanes[name], clock, now), "queues_aside": step.engine.aside.why(lanes[name])}
        for name in sorted(lanes)
    }


def _step(state: Any) -> LimitingStep | None:
    step: LimitingStep | None = getattr(state.consumer, "global_rate", None)
    return step


def _refusal(step: LimitingStep, state: Any, name: str) -> Any:
    """The reply for a task whose rate cannot be changed."""
    if name not in step.named and name not in state.app.tasks:
        return nok("unknown task")
    return nok(f"{name} is {NOT_LIMITED}") if step.is_unlimited(name) else None


def _change(step: LimitingStep, name: str, change: dict[str, Any], source: str, done: str) -> Any:
    """Write a change and reply. This waits for Redis: such a command is rare, and its sender wants an answer."""
    engine, broadcast = step.engine, step.broadcast
    try:
        with BlockingStore(engine.settings, REPLY_TIMEOUT_S) as store:
            _, override = store.change(
                name, change, f"control, {step.hostname}", source, id=broadcast.id, late_s=engine.blocked_s
            )
    except ERRORS as exc:
        return nok(f"no answer from the Redis at {engine.settings.address} ({cause(exc)}): try again")
    if override is None:
        return nok("received too late: nothing was changed")
    engine.obey(name, override)
    limit_override = override.limit_override
    if limit_override is None or limit_override.rate != change["limit"]["rate"]:
        rate = limit_override.rate if limit_override else DECLARED
        in_force = spelled(step.declared(name)) if rate == DECLARED else rate
        return nok(f"received too late: a newer override exists, and {in_force} is in force")
    before = limit_override.declared if limit_override.replaced == DECLARED else limit_override.replaced
    in_force = limit_override.declared if limit_override.rate == DECLARED else limit_override.rate
    return ok(f"{done} for the whole cluster: {in_force}, before {before}")
