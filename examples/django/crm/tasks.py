"""What workers do with the CRM."""

from __future__ import annotations

from urllib.error import URLError

from celery import shared_task

from .client import read_customer


@shared_task(autoretry_for=(URLError,), retry_backoff=True)
def import_customer(number: int) -> None:
    """Read a customer; it starts when the bucket `crm-api` has a slot."""
    print("imported", read_customer(number))
