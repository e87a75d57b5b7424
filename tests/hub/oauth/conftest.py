"""A site to visit."""

from collections.abc import AsyncIterator

import pytest
from hub.web.site import Site, open_site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site() as made:
        yield made
