"""Each test that asks for a client is run with both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from both import Both


@pytest.fixture(params=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest) -> Callable[..., Both]:
    """A client of a server's address, perhaps with credentials."""
    return partial(Both, request.param)
