"""Keeps the workers busy, and tells what they do: `docker compose up`."""

from __future__ import annotations

import itertools
import time
from collections import Counter

from proj import STARTS, call_api, starts

#: Between two lines, in seconds.
WATCH_S = 5
#: Tasks that wait, so that there is always something to start: some seconds' worth.
BACKLOG = 200


def main() -> None:
    """Send and count until somebody stops it."""
    starts.delete(STARTS)
    numbers, started, last = itertools.count(), 0, "0"
    print("sending call_api, declared with rate_limit='10/s'; the workers need a moment to start", flush=True)
    sent = 0
    while True:
        while sent - started < BACKLOG:
            call_api.delay(next(numbers))
            sent += 1
        time.sleep(WATCH_S)
        entries = starts.xrange(STARTS, min=f"({last}")
        started += len(entries)
        shares = Counter(entry["worker"].partition("@")[2] for _, entry in entries)
        workers = ", ".join(f"{worker} {count / WATCH_S:.1f}" for worker, count in sorted(shares.items()))
        print(
            f"{len(entries) / WATCH_S:.1f} starts a second on {len(shares)} workers ({workers or 'none'})", flush=True
        )
        if entries:
            last = entries[-1][0]


if __name__ == "__main__":
    main()
