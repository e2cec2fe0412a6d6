"""What client libraries raise when an API refuses, read from the real ones against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from testbed.environments import FOLDER, environment
from testbed.server import root

from ..apps.api_clients import CLIENTS, REFUSAL, REQUIREMENTS
from ..conftest import Figures

#: The status and the headers of each refusal, and the answer that is read: status, length, what could not be read.
#: The server's clock is in another year.
DATE = {"Date": "Sun, 06 Nov 1994 08:49:37 GMT"}
REFUSALS: dict[str, tuple[int, dict[str, str], tuple[int, int | None, str | None] | None]] = {
    "seconds": (429, {"Retry-After": "2"}, (429, 2_000_000, None)),
    "decimals": (429, {"retry-after": "0.25"}, (429, 250_000, None)),
    "milliseconds": (429, {"Retry-After-Ms": "1250", "Retry-After": "2"}, (429, 1_250_000, None)),
    "date": (429, {"Retry-After": "Sun, 06 Nov 1994 08:49:39 GMT"}, (429, 2_000_000, None)),
    "rubbish": (429, {"Retry-After": "soon"}, (429, None, "'soon'")),
    "bare": (429, {}, (429, None, None)),
    "unavailable": (503, {"Retry-After": "2"}, (503, 2_000_000, None)),
    "ill": (503, {}, None),
    "broken": (500, {"Retry-After": "2"}, None),
    "unknown": (404, {}, None),
}


class Api(BaseHTTPRequestHandler):
    """Refuses each request as the first part of its path says."""

    def do_GET(self) -> None:
        """Answer, whatever the method."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, _ = REFUSALS[self.path.split("/")[1]]
        self.send_response_only(status)
        for name, value in {**DATE, **headers, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(REFUSAL)))
        self.end_headers()
        self.wfile.write(REFUSAL)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """In no log."""


@pytest.fixture(scope="module")
def answers() -> Iterator[dict[str, dict[str, Any]]]:
    """Of every library to every refusal. Where the libraries cannot be installed, the tests are skipped."""
    try:
        python = environment(FOLDER / "api-clients", *REQUIREMENTS)
    except RuntimeError as exc:
        pytest.skip(str(exc))
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [python, "-m", "tests.feedback.client_answers", f"http://127.0.0.1:{server.server_port}", *REFUSALS]
        variables = {**os.environ, "PYTHONPATH": str(root())}
        done = subprocess.run(
            command, cwd=root(), env=variables, capture_output=True, text=True, timeout=60, check=False
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_read(client: str, answers: dict[str, dict[str, Any]], figures: Figures) -> None:
    read = {name: it["answer"] and tuple(it["answer"].values()) for name, it in answers[client].items()}
    figures(f"{client} raises {', '.join(sorted({it['raised'] for it in answers[client].values()}))}")

    assert all(it["raised"] != "nothing" for it in answers[client].values())
    assert read == {name: answer for name, (_, _, answer) in REFUSALS.items()}
