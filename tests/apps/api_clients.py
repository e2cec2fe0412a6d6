"""Calls to an API, one for each client library: each raises what its library makes of a refusal.

Retries of the libraries' own are off. Each imports what it needs when it is called.
"""

from __future__ import annotations

from collections.abc import Callable


def by_urllib(url: str) -> None:
    """The standard library."""
    from urllib.request import urlopen

    urlopen(url, timeout=10).close()


def by_requests(url: str) -> None:
    """Its sessions do not retry unless they are told to."""
    import requests

    requests.get(url, timeout=10).raise_for_status()


def by_httpx(url: str) -> None:
    """It does not retry refusals."""
    import httpx

    httpx.get(url, timeout=10).raise_for_status()


def by_aiohttp(url: str) -> None:
    """In an event loop of its own, as a task of Celery does it."""
    import asyncio

    import aiohttp

    async def get() -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as response:
            await response.read()

    asyncio.run(get())


def by_botocore(url: str) -> None:
    """A call to an API of Amazon's, SQS for one."""
    import botocore.session
    from botocore.config import Config

    client = botocore.session.Session().create_client(
        "sqs",
        "eu-west-1",
        endpoint_url=url,
        aws_access_key_id="none",
        aws_secret_access_key="none",
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
    )
    client.list_queues()


def by_google_api_core(url: str) -> None:
    """What the REST clients of Google Cloud do with a response of requests."""
    import requests
    from google.api_core.exceptions import from_http_response

    response = requests.get(url, timeout=10)
    if response.status_code >= 400:
        raise from_http_response(response)


def by_stripe(url: str) -> None:
    """A charge is read."""
    import stripe

    client = stripe.StripeClient("none", base_addresses={"api": url}, max_network_retries=0)
    client.raw_request("get", "/v1/charges/ch_1")


def by_openai(url: str) -> None:
    """The models are listed."""
    import openai

    openai.OpenAI(api_key="none", base_url=url, max_retries=0).models.list()


#: What an API has to answer for all of them to say so: without an error in it, Stripe's client leaves the headers out.
REFUSAL = b'{"error": {"message": "slow down"}}'
#: By the name of the library.
CLIENTS: dict[str, Callable[[str], None]] = {
    "urllib": by_urllib,
    "requests": by_requests,
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
    "botocore": by_botocore,
    "google-api-core": by_google_api_core,
    "stripe": by_stripe,
    "openai": by_openai,
}
#: What they need, for an environment of their own.
REQUIREMENTS = (
    "requests>=2.31",
    "httpx>=0.27",
    "aiohttp>=3.10",
    "botocore>=1.34",
    "google-api-core>=2.19",
    "stripe>=12",
    "openai>=1.40",
)
