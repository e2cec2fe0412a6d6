"""How late the event loop of a worker was, as the eye in `testbed.many` has seen."""

from __future__ import annotations

from testbed.cluster import Cluster


def eye(cluster: Cluster) -> dict[str, float]:
    """What the eye has seen since it was asked last."""
    replies = cluster.app.control.inspect(["w0@lab"], timeout=3, limit=1).stats() or {}
    seen: dict[str, float] = replies["w0@lab"]["eye"]
    return seen
