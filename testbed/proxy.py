"""A TCP proxy on loopback that delays what it forwards, or stops forwarding: a slow or broken network."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any


class Proxy:
    """Forwards to a port, each direction by a fixed delay.

    Args:
        target: the port on loopback to forward to.
        delay_s: how long every byte takes, each way, in seconds.
        pause_s: where set, what the target answers is forwarded in single bytes, with this pause before each.
    """

    def __init__(self, target: int, delay_s: float = 0.0, pause_s: float | None = None) -> None:
        self.target, self.delay_s, self.pause_s = target, delay_s, pause_s
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._run(self._cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Close all connections. New ones are served."""
        self._run(self._close_all())

    async def _close_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _cancel(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # the target is away
            writer.transport.abort()
            return
        self._open |= {writer, back}
        try:
            await asyncio.gather(self._forward(reader, back, None), self._forward(there, writer, self.pause_s))
        finally:
            for side in (writer, back):
                side.close()

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, pause_s: float | None) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while data := await source.read(65536 if pause_s is None else 1):
                if pause_s is not None:
                    await asyncio.sleep(pause_s)
                self._loop.call_later(self.delay_s, self._write, sink, data)
        self._loop.call_later(self.delay_s, sink.close)  # after a reset, too

    @staticmethod
    def _write(sink: asyncio.StreamWriter, data: bytes) -> None:
        if not sink.is_closing():
            sink.write(data)
