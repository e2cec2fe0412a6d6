"""What the tests of examples share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .api import Api


@pytest.fixture
def api() -> Iterator[Api]:
    """The API that an example calls."""
    with Api() as api:
        yield api
