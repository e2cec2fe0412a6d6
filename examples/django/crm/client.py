"""Requests to the CRM's API."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import urlopen

from django.conf import settings


def read_customer(number: int) -> dict[str, Any]:
    """A customer, as the API has it."""
    with urlopen(f"{settings.CRM_URL}/customers/{number}", timeout=10) as answer:
        customer: dict[str, Any] = json.load(answer)
    return customer
