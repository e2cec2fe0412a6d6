"""`make demo`: one limit and four real workers, first stock Celery, then the same with celery-global-rate.

It ends by itself within a minute, with 0 if the promise was kept and the slots were used, 1 if not, 2 if the
demo could not run, and 128 + the signal (130 after Ctrl-C) if it was stopped.
"""

from __future__ import annotations

import sys

from .stop import Stop, StoppedError


def main() -> int:
    """Run the demo and return its exit status."""
    stop = Stop()
    from .play import run  # takes a moment, in which Ctrl-C is to be noted already

    try:
        return run(stop)
    except StoppedError:
        print("Stopped: all workers and the server have ended.")
        return 128 + stop.signum


if __name__ == "__main__":
    sys.exit(main())
