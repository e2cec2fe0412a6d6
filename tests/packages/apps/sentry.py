"""Sentry in all processes of a worker; what would be sent goes into a file. To be included beside `testbed.app`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

from testbed.app import SETUP

FILE = Path(SETUP["records"]).parent / "sentry"


class ToFile(Transport):
    """Writes down what would go to Sentry, one line for each event."""

    def capture_envelope(self, envelope: Any) -> None:
        lines = b"".join(json.dumps(item.payload.json).encode() + b"\n" for item in envelope.items if item.payload.json)
        file = os.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, lines)
        os.close(file)


sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1", transport=ToFile, traces_sample_rate=1.0, integrations=[CeleryIntegration()]
)
