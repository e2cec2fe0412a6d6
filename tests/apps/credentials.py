"""Credential providers, as a URL names them."""

from __future__ import annotations

import os

from redis.credentials import CredentialProvider

SECRET = "s3cret/@"


class Provider(CredentialProvider):
    """Knows the password."""

    def get_credentials(self) -> tuple[str]:
        return (SECRET,)


class LateProvider(Provider):
    """Cannot be made at first, in each process; what it says then is no business of a log."""

    def __init__(self) -> None:
        left = int(os.environ.get("GLOBAL_RATE_FAILURES", "2"))
        os.environ["GLOBAL_RATE_FAILURES"] = str(left - 1)
        if left > 0:
            raise RuntimeError(f"no token for {SECRET}")
