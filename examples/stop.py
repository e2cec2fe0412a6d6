"""How the demo is ended before its time."""

from __future__ import annotations

import signal
from types import FrameType


class StoppedError(Exception):
    """The demo was asked to end."""


class Stop:
    """Notes Ctrl-C and TERM. The demo checks it between its steps: no signal interrupts the start of a process."""

    def __init__(self) -> None:
        self.signum = 0
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = self.signum or signum

    def check(self) -> None:
        """Raise if it is time to end."""
        if self.signum:
            raise StoppedError
