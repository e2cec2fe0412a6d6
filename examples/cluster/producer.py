"""Keeps the workers busy, and shows what they do: `docker compose up`."""

from __future__ import annotations

import time
from collections import Counter

from proj import CALLS, LOOK_UPS, call_api, look_up, starts

#: Between two lines.
WATCH_MS = 5000
#: Calls that wait: there is always one to start. A single worker can hold them all, or look-ups would wait too.
BACKLOG = 100
#: Between two looks at the backlog: it lasts for nearly a thousand calls a second.
FEED_S = 0.1


def now_ms() -> int:
    """The Redis clock, which stamps the starts as well."""
    seconds, microseconds = starts.time()
    return seconds * 1000 + microseconds // 1000


def read(stream: str, begin_ms: int, end_ms: int) -> list[tuple[int, dict[str, str]]]:
    """The starts from one instant to just before another: when, and what the task left."""
    return [(int(stamp.partition("-")[0]), entry) for stamp, entry in starts.xrange(stream, begin_ms, end_ms - 1)]


def line(begin_ms: int, end_ms: int) -> str:
    """What happened in this time."""
    calls, look_ups = read(CALLS, begin_ms, end_ms), read(LOOK_UPS, begin_ms, end_ms)
    seconds = (end_ms - begin_ms) / 1000
    shares = Counter(call["worker"].partition("@")[2] for _, call in calls)
    workers = ", ".join(f"{worker} {count / seconds:.1f}" for worker, count in sorted(shares.items())) or "none"
    # The fullest second ends with a call: of those before this time, the ones of its last second count too.
    instants = [instant for instant, _ in read(CALLS, begin_ms - 1000, end_ms)]
    fullest = max((sum(end - 1000 < instant <= end for instant in instants) for end, _ in calls), default=0)
    delay_ms = max((instant - int(entry["sent_ms"]) for instant, entry in look_ups), default=0)
    return (
        f"{len(calls) / seconds:.1f} starts a second on {len(shares)} workers ({workers}), at most {fullest} in any "
        f"second; {len(look_ups)} tasks without a limit, the slowest started after {delay_ms} ms"
    )


def main() -> None:
    """Send, and print the rates, until it is stopped."""
    starts.delete(CALLS, LOOK_UPS)
    print("call_api has rate_limit='10/s', look_up has none; the workers need a moment to start", flush=True)
    sent = started = 0
    looked_ms = printed_ms = now_ms()
    while True:
        until_ms = now_ms()
        started += len(read(CALLS, looked_ms, until_ms))
        looked_ms = until_ms
        while sent - started < BACKLOG:
            call_api.delay()
            sent += 1
        look_up.delay(now_ms())
        if until_ms >= printed_ms + WATCH_MS:
            print(line(printed_ms, printed_ms + WATCH_MS), flush=True)
            printed_ms += WATCH_MS
        time.sleep(FEED_S)


if __name__ == "__main__":
    main()
