"""The API that the examples call: it answers everything, and notes when and what."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Api(ThreadingHTTPServer):
    """Listens on a free port while it is entered.

    Attributes:
        calls: of each request, when it arrived (monotonic seconds), its method and its path.
        refusals: of the next requests whose path begins like the first text, one is answered 429 with the other text as
            its ``Retry-After``.
    """

    daemon_threads = True
    request_queue_size = 1000

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.calls: list[tuple[float, str, str]] = []
        self.refusals: list[tuple[str, str]] = []

    def __enter__(self) -> Api:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self.server_close()

    def instants(self, begin: str = "/") -> list[float]:
        """When requests came whose path begins like this, sorted."""
        return sorted(instant for instant, _, path in list(self.calls) if path.startswith(begin))


class Handler(BaseHTTPRequestHandler):
    """Repeats in JSON what it was asked."""

    server: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer, whatever the method."""
        self.server.calls.append((time.monotonic(), self.command, self.path))
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        asked = {"method": self.command, "path": self.path, "sent": sent, "mark": self.headers.get("X-Mark")}
        body = json.dumps(asked).encode()
        refused = next((it for it in self.server.refusals if self.path.startswith(it[0])), None)
        if refused:
            self.server.refusals.remove(refused)
            self.send_response(429)
            self.send_header("Retry-After", refused[1])
        else:
            self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """In no log."""
