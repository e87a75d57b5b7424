"""A whole proxy in the test's own event loop, on a free port, before a hub that the test holds."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.hub import FakeHub
from proxy.wire import Client, connect

from carrel_proxy.app import Proxy
from carrel_proxy.settings import ProxySettings
from carrel_shared.addresses import TcpAddress, bind_address
from carrel_shared.clock import Clock
from carrel_shared.lines import LineWriter
from carrel_shared.wire.routes import Access, Route, RouteTable

KEY = "x" * 40
SERVER_ID = "0123456789ab"
SECRET = "between proxy and server"


@dataclass
class Running:
    """A proxy that runs, and how to talk to it."""

    proxy: Proxy
    port: int
    number: int = 0

    def route(self, *routes: Route) -> None:
        """Put a table of these routes alone."""
        self.number += 1
        self.proxy.table.put(RouteTable(epoch="e", number=self.number, routes=list(routes)))

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with connect(self.port) as client:
            yield client


def plain_route(target: str, prefix: str = "/", **more: Any) -> Route:
    return Route(prefix=prefix, targets=[target], **more)


def guarded_route(
    target: str, prefix: str = "/user/alice/", server_id: str = SERVER_ID, **more: Any
) -> Route:
    access = Access(server_id=server_id, client_id=f"jupyterhub-user-{server_id}", secret=SECRET)
    return Route(prefix=prefix, targets=[target], access=access, server=True, **more)


def make_settings(directory: Path, **more: Any) -> ProxySettings:
    values: dict[str, Any] = {
        "control_listen": f"unix:{directory}/control.sock",
        "control_key": KEY,
        "hub_url": f"unix:{directory}/hub.sock",
        "hub_key": KEY,
        "state_dir": directory,
        "drain_seconds": 0.2,
    }
    return ProxySettings(**(values | more))


@asynccontextmanager
async def open_proxy(
    directory: Path,
    hub: FakeHub,
    *,
    clock: Clock | None = None,
    tls: ssl.SSLContext | None = None,
    lines: LineWriter | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    proxy = Proxy(make_settings(directory, **settings), clock=clock, hub=hub.client(), lines=lines)
    listening = bind_address(TcpAddress("127.0.0.1", 0))
    await proxy.start([listening], tls)
    try:
        yield Running(proxy, listening.getsockname()[1])
    finally:
        await proxy.stop()
