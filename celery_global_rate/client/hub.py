"""The thread of this process in which all limiters live, whatever threads and event loops their callers are in."""

from __future__ import annotations

import atexit
import os
import threading

from ..storage.location import Location
from .engine import Engine
from .loop import Loop
from .wakes import Wakes

#: How long the end of the process waits for slots to be given back, in seconds.
STOP_S = 1.0


class Hub:
    """One thread, and in it an engine for each Redis.

    Attributes:
        wakes: lets tasks of asyncio go on.
    """

    def __init__(self) -> None:
        self.wakes = Wakes()
        self._loop = Loop(self.wakes.send)
        self._lock = threading.Lock()
        self._engines: list[tuple[Location, str, Engine]] = []
        self._thread = threading.Thread(target=self._loop.run, name="global-rate", daemon=True)
        self._thread.start()

    def engine(self, location: Location, on_outage: str) -> Engine:
        """That of a Redis."""
        with self._lock:
            for known, policy, engine in self._engines:
                if (known, policy) == (location, on_outage):
                    return engine
            engine = Engine(location, on_outage, self._loop)
            self._engines.append((location, on_outage, engine))
            self._loop.waker.call(engine.attach)
            return engine

    def stop(self) -> None:
        """Give slots back, and end. From any other thread."""
        self._loop.waker.call(self._end)
        self._thread.join(STOP_S)

    def _end(self) -> None:
        for _, _, engine in self._engines:
            engine.detach()
        self._loop.end()


_hub: Hub | None = None
_lock = threading.Lock()


def hub() -> Hub:
    """That of this process. A child has its own: sockets and threads of its parent are not for it."""
    global _hub
    with _lock:
        if _hub is None:
            _hub = Hub()
        return _hub


def _forget() -> None:
    global _hub, _lock
    _hub, _lock = None, threading.Lock()


def _stop() -> None:
    if _hub is not None:
        _hub.stop()


os.register_at_fork(after_in_child=_forget)
atexit.register(_stop)
