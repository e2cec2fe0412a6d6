"""Credential providers that are named by text, as kombu and Celery take them in a URL."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from redis.credentials import CredentialProvider


class NamedProvider(CredentialProvider):
    """A provider that is made when it is first needed: an error in it is then one of the connection.

    Args:
        name: of its class, or of what makes it, as `package.module.Class`.

    Raises:
        ImportError, AttributeError, ValueError, TypeError: there is none of that name.
    """

    def __init__(self, name: str) -> None:
        self._make = resolve_name(name) if isinstance(name, str) else name
        if not callable(self._make):
            raise TypeError(f"{name} is not a class")
        self._provider: Any = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamedProvider) and self._make == other._make

    def __hash__(self) -> int:
        return hash(self._make)

    def get_credentials(self) -> Any:
        """The password, or user and password."""
        if self._provider is None:
            self._provider = self._make()
        return self._provider.get_credentials()
