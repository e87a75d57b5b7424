"""An edge and the relay of another host, in one loop, with certificates of one authority."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.authority import Authority, Pair
from proxy.hub import FakeHub
from proxy.running import KEY, Running, open_proxy

from carrel_proxy.relay.relay import Relay
from carrel_proxy.settings import ProxySettings
from carrel_shared.addresses import TcpAddress, bind_address
from carrel_shared.wire.routes import Route, RouteTable

HOST = "host-b"


@dataclass
class RunningRelay:
    """A relay that runs, and how to give it routes."""

    relay: Relay
    port: int
    number: int = 0

    @property
    def target(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def route(self, *routes: Route) -> None:
        self.number += 1
        table = RouteTable(epoch="agent", number=self.number, routes=list(routes))
        self.relay.table.put(table)


def state_of(directory: Path) -> Path:
    """Return where the relay keeps its table; the edge keeps its own in `directory` itself."""
    state = directory / "relay"
    state.mkdir(exist_ok=True)
    return state


def relay_settings(directory: Path, pair: Pair, **more: Any) -> ProxySettings:
    values: dict[str, Any] = {
        "mode": "relay",
        "bind": "127.0.0.1:0",
        "control_listen": f"unix:{directory}/relay.sock",
        "control_key": KEY,
        "state_dir": state_of(directory),
        "drain_seconds": 0.2,
        **pair.fleet,
    }
    return ProxySettings(**(values | more))


@asynccontextmanager
async def open_relay(directory: Path, pair: Pair, **settings: Any) -> AsyncIterator[RunningRelay]:
    relay = Relay(relay_settings(directory, pair, **settings))
    listening = bind_address(TcpAddress("127.0.0.1", 0))
    await relay.start([listening])
    try:
        yield RunningRelay(relay, listening.getsockname()[1])
    finally:
        await relay.stop()


@dataclass
class Fleet:
    """Both of them."""

    authority: Authority
    edge: Running
    relay: RunningRelay


@asynccontextmanager
async def open_fleet(
    directory: Path,
    hub: FakeHub,
    authority: Authority | None = None,
    *,
    edge: Pair | None = None,
    relay: Pair | None = None,
) -> AsyncIterator[Fleet]:
    """Run both, with good certificates where none is given."""
    authority = authority or Authority(directory)
    edge = edge or authority.edge()
    async with (
        open_relay(directory, relay or authority.host(HOST)) as running,
        open_proxy(directory, hub, **edge.fleet) as proxy,
    ):
        yield Fleet(authority, proxy, running)


def logged(logs: Sequence[Mapping[str, Any]], event: str) -> str:
    """Return the reasons of all log lines of one kind."""
    return "; ".join(str(line.get("reason")) for line in logs if line["event"] == event)
