"""What an API's refusals look like through each client library: prints it as JSON.

Runs in an environment that has the libraries, with the address of the API and the names of its refusals.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from celery_global_rate.feedback.answer import pause_asked_for
from tests.apps.api_clients import CLIENTS


def answer(client: str, url: str) -> dict[str, object]:
    """The exception that a client raises, and what is read from it."""
    try:
        CLIENTS[client](url)
    except Exception as error:
        read = pause_asked_for(error, time.time(), 3600.0)
        return {"raised": type(error).__name__, "answer": read and asdict(read)}
    return {"raised": "nothing", "answer": None}


if __name__ == "__main__":
    _, api, *refusals = sys.argv
    print(json.dumps({client: {name: answer(client, f"{api}/{name}") for name in refusals} for client in CLIENTS}))
