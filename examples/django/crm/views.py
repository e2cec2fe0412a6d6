"""What web processes do with the CRM."""

from __future__ import annotations

import math

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET, require_POST
from shop.celery import app

from celery_global_rate import AcquireTimeout, RateLimiter

from .client import read_customer
from .tasks import import_customer

#: The bucket that the tasks draw from, with what the settings say of it.
limiter = RateLimiter.from_app(app, "crm-api")
#: How long a visitor waits.
PATIENCE_S = 2


@require_GET
def customer(request: HttpRequest, number: int) -> HttpResponse:
    """A customer, from the API: waits for a slot, or says when to come again."""
    try:
        limiter.acquire(timeout=PATIENCE_S)
    except AcquireTimeout as error:
        headers = {"Retry-After": str(math.ceil(error.retry_after or PATIENCE_S))}
        return JsonResponse({"error": "too many requests"}, status=429, headers=headers)
    return JsonResponse(read_customer(number))


@require_POST
def start_import(request: HttpRequest) -> HttpResponse:
    """Have workers read a hundred customers."""
    for number in range(100):
        import_customer.delay(number)
    return JsonResponse({"queued": 100}, status=202)
