"""Limiters that are made without an application import no Celery."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from celery_global_rate import AcquireTimeout, AsyncRateLimiter, RateLimited, RateLimiter
for kind in (RateLimiter, AsyncRateLimiter):
    kind("redis://localhost", "crm-api", "10/s", prefix="shop")
print(sorted({name.partition(".")[0] for name in sys.modules} & {"amqp", "billiard", "celery", "kombu", "vine"}))
"""


def run(program: str) -> str:
    """What a new Python prints."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_limiter_without_an_application_imports_no_celery() -> None:
    assert run(PROGRAM) == "[]\n"


def test_the_extension_is_imported_with_its_check_of_workers() -> None:
    program = "import sys; from celery_global_rate import GlobalRateLimit; print(*sys.modules)"

    assert "celery_global_rate.activation" in run(program).split()


def test_another_name_is_none_of_the_package() -> None:
    import celery_global_rate

    with pytest.raises(AttributeError, match="'RateLimitr'"):
        celery_global_rate.RateLimitr  # noqa: B018
