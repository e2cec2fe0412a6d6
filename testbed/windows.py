"""Judging a run by its instants: every window against the promise, slots used, shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def excess(instants: Sequence[float], interval_s: float, burst: int, slack_s: float) -> float:
    """By how many starts the worst window exceeds the promise; 0 or less if it is kept.

    The promise for a window of length w is ``burst + (w + slack) / interval``. Only windows that begin and end with
    a start can be the worst, and with x_k = k - t_k / interval the window from i to j holds x_j - x_i + 1 starts more
    than its length allows: one pass with the smallest x so far sees every window.

    Args:
        instants: seconds, sorted.
        interval_s: the emission interval T.
        burst: slots in a full bucket.
        slack_s: D + R for releases, D + R + J for starts, in seconds.
    """
    worst = smallest = float("inf")
    worst = -worst
    for index, instant in enumerate(instants):
        position = index - instant / interval_s
        smallest = min(smallest, position)
        worst = max(worst, position - smallest + 1)
    return worst - burst - slack_s / interval_s


def since(instants: Iterable[float], begin: float, end: float = float("inf")) -> list[float]:
    """The instants from `begin` on, before `end`."""
    return [instant for instant in instants if begin <= instant < end]


def used(instants: Sequence[float], interval_s: float, begin: float, end: float) -> float:
    """The share of the slots that were used, from the first start after `begin` to the first one after `end`.

    Measured from start to start: it does not matter where in an interval the watch begins. A load that ended
    too early has no start after `end`; the time until then counts as unused.
    """
    inside = since(instants, begin, end)
    if not inside:
        return 0.0
    after = next((instant for instant in instants if instant >= end), max(end, inside[-1] + interval_s))
    return len(inside) * interval_s / (after - inside[0])


def jain(shares: Iterable[float]) -> float:
    """Jain's index of fairness: 1 where all shares are equal, 1/n where one has everything."""
    shares = list(shares)
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
