"""A hub to test with."""

from collections.abc import AsyncIterator

import pytest
from hub.world import World, open_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world() as made:
        yield made
