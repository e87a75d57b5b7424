"""A whole proxy with a caller of its API, in the test's own event loop."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
from proxy.wire import Client, connect

from carrel_proxy.chp.options import read_options
from carrel_proxy.chp.program import ChpProxy
from carrel_proxy.control.metrics import MetricsPage
from carrel_shared.addresses import TcpAddress, bind_address
from carrel_shared.clock import ManualClock

TOKEN = "a-token-of-the-hub"
ROUTES = "/api/routes"


class Chp:
    """A proxy and a caller of its API who shows the token."""

    def __init__(self, proxy: ChpProxy, port: int, clock: ManualClock) -> None:
        self.proxy = proxy
        self.port = port
        self.clock = clock
        self.api = api_client(proxy, {"Authorization": f"token {TOKEN}"})

    def client(self) -> AbstractAsyncContextManager[Client]:
        return connect(self.port)

    async def add(self, path: str, target: str, **more: Any) -> None:
        answer = await self.api.post(ROUTES + path, json={"target": target, **more})
        assert (answer.status_code, answer.content) == (201, b"")

    async def routes(self) -> dict[str, dict[str, Any]]:
        answer = await self.api.get(ROUTES)
        assert answer.status_code == 200
        found: dict[str, dict[str, Any]] = answer.json()
        return found

    async def metrics(self) -> str:
        transport = httpx.ASGITransport(MetricsPage(self.proxy.metrics_text))
        async with httpx.AsyncClient(transport=transport, base_url="http://m") as client:
            assert (await client.get("/")).status_code == 404
            return (await client.get("/metrics")).text


def api_client(proxy: ChpProxy, headers: dict[str, str]) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(proxy.api), base_url="http://api", headers=headers
    )


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Chp]:
    clock = ManualClock()
    options = read_options(arguments, {"CONFIGPROXY_AUTH_TOKEN": TOKEN})
    proxy = ChpProxy(options, clock=clock)
    listening = bind_address(TcpAddress("127.0.0.1", 0))
    await proxy.start([listening], None)
    chp = Chp(proxy, listening.getsockname()[1], clock)
    try:
        yield chp
    finally:
        await chp.api.aclose()
        await proxy.stop()
