"""A proxy between a client and one recording target."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from proxy.hub import FakeHub
from proxy.running import Running, open_proxy, plain_route
from proxy.wire import Upstream, open_upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with open_upstream() as upstream:
        yield upstream


@pytest.fixture
async def running(short_dir: Path, hub: FakeHub, upstream: Upstream) -> AsyncIterator[Running]:
    async with open_proxy(short_dir, hub) as running:
        running.route(plain_route(upstream.target))
        yield running
