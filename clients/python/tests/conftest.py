"""Each test that asks for a client is run with both."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from both import Both


@pytest.fixture(params=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest) -> Callable[[str], Both]:
    """A client of a server's address."""
    return lambda address: Both(request.param, address)
