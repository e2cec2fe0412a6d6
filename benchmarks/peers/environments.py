"""What limits the rate, and the Python that it runs in."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from testbed.environments import environment
from testbed.server import root

#: Kept between runs, and in no commit.
FOLDER = root() / ".peers"


@dataclass(frozen=True)
class Peer:
    """What limits the rate.

    Attributes:
        app: its module in `apps`, or in `limiters`.
        title: as the table names it.
        package: its requirement; empty if it needs nothing beside Celery and redis-py.
        refill: a task that brings tokens, sent at the begin in place of beat, with its arguments.
        measured_s: for how long it is watched; a minute if it counts by the minute.
        warm_up_s: how long the load runs before; none if its tokens come at the begin.
    """

    app: str
    title: str
    package: str = ""
    refill: tuple[str, dict[str, str]] | None = None
    measured_s: float = 20.0
    warm_up_s: float = 3.0


REFILL = "django_celery_token_bucket.tasks.token_bucket_refill", {"name": "limited"}
PEERS = (
    Peer("stock", "Celery's rate_limit, divided by hand"),
    Peer("counter", "Redis counter, INCR"),
    Peer("sorted_set", "Redis counter, sorted set"),
    Peer("limits_retry", "limits, moving window", "limits==5.8.0"),
    Peer("throttled_retry", "throttled-py, GCRA", "throttled-py==3.5.0"),
    Peer("heimdall", "celery-heimdall", "celery-heimdall==1.0.1"),
    Peer("token_bucket", "django-celery-token-bucket", "django-celery-token-bucket==5.0.0", REFILL, 58.0, 0.0),
    Peer("ours", "celery-global-rate"),
)
#: Libraries in processes that are no workers.
LIMITERS = (
    Peer("limits_moving", "limits, moving window", "limits==5.8.0"),
    Peer("pyrate_log", "pyrate-limiter, sliding window", "pyrate-limiter==4.5.1"),
    Peer("pyrate_gcra", "pyrate-limiter, GCRA", "pyrate-limiter==4.5.1"),
    Peer("throttled_wait", "throttled-py, its own pauses", "throttled-py==3.5.0"),
    Peer("throttled_gcra", "throttled-py, evenly spaced", "throttled-py==3.5.0"),
    Peer("aiolimiter_quarter", "aiolimiter, a quarter each", "aiolimiter==1.3.0"),
    Peer("ours_threads", "celery-global-rate, RateLimiter"),
    Peer("ours_tasks", "celery-global-rate, AsyncRateLimiter"),
)


def python(peer: Peer) -> str:
    """The Python that its workers run in; made at the first time.

    Raises:
        RuntimeError: its package cannot be installed.
    """
    return environment(FOLDER / peer.app, peer.package) if peer.package else sys.executable
