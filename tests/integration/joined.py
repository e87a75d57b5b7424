"""A real hub and a real proxy in one process, wired as two, before a target that a test holds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from hub.web.site import form_of
from hub.world import open_world
from proxy.running import make_settings
from proxy.wire import Client, Upstream, connect, open_upstream

from carrel_hub.app import create_internal_app, create_public_app
from carrel_hub.auth.links import create_link
from carrel_hub.context import Hub
from carrel_hub.db.models import Server, User
from carrel_hub.routing.changes import append_change, position
from carrel_hub.routing.desired import server_route
from carrel_hub.routing.push import Pusher
from carrel_hub.spawns.service import ensure_server
from carrel_hub.users.accounts import get_or_create_user
from carrel_proxy.access.hub import Hub as HubCaller
from carrel_proxy.app import Proxy
from carrel_shared.addresses import TcpAddress, UnixAddress, bind_address
from carrel_shared.clock import SystemClock
from carrel_shared.tasks import TaskOwner
from carrel_shared.wire.routes import PutRoute

KEY = "P" * 32
BROWSER = {
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Accept": "text/html,*/*;q=0.8",
}


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _ToProxy(httpx.AsyncBaseTransport):
    """Takes every name for the proxy's, as a wildcard in DNS and TLS before it would."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        return await self._inner.handle_async_request(
            httpx.Request(request.method, url, headers=request.headers, stream=request.stream)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass
class Person:
    """Somebody with a browser: keeps cookies, says what browsers say, follows where it is sent."""

    client: httpx.AsyncClient
    seen: list[str] = field(default_factory=list)

    async def go(self, address: str, **headers: str) -> httpx.Response:
        """Navigate, and return where that ends."""
        reply = await self.client.get(address, headers=BROWSER | headers)
        for _ in range(12):
            self.seen.append(str(reply.url))
            if not reply.is_redirect:
                return reply
            reply = await self.client.get(str(reply.next_request.url), headers=BROWSER)  # type: ignore[union-attr]
        raise AssertionError(f"in circles: {self.seen}")

    async def press(self, page: httpx.Response, button: str) -> httpx.Response:
        """Send a form, and return where that ends."""
        form = form_of(page, button)
        headers = BROWSER | {"Sec-Fetch-Site": "same-origin"}
        address = page.url.join(form["action"])
        reply = await self.client.post(address, data=form["fields"], headers=headers)
        return await self.go(str(reply.next_request.url)) if reply.next_request else reply


@dataclass
class Joined:
    """The two, and what is needed to try them."""

    hub: Hub
    proxy: Proxy
    port: int
    upstream: Upstream
    origin: str
    _clients: list[httpx.AsyncClient]

    def person(self) -> Person:
        client = httpx.AsyncClient(transport=_ToProxy(self.port), base_url=self.origin, timeout=60)
        self._clients.append(client)
        return Person(client)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Client]:
        """Have a connection to write on by hand."""
        async with connect(self.port) as client:
            yield client

    async def user(self, name: str, *, admin: bool = False) -> User:
        """Have a user; an administrator without a unix account, so none of whose servers starts."""
        async with self.hub.database.write() as db:
            account = None if admin else name
            return await get_or_create_user(
                db, name, at=self.hub.clock.now(), account=account, admin=admin
            )

    async def signed_in(self, name: str, *, admin: bool = False) -> Person:
        """Return somebody who has pressed the button of a sign-in link."""
        user = await self.user(name, admin=admin)
        async with self.hub.database.write() as db:
            link = await create_link(db, self.hub, user)
        person = self.person()
        page = await person.go(f"{self.origin}{link.path}")
        await person.press(page, "sign-in")
        return person

    async def server(self, name: str) -> Server:
        """Have a server that is ready and routed to the target."""
        user = await self.user(name)
        async with self.hub.database.write() as db:
            row = await ensure_server(db, user, at=self.hub.clock.now())
            row.state, row.address, row.secret = "ready", self.upstream.target, "s" * 32
            route = server_route(row, name, self.hub.settings.places)
            row.route_number = await append_change(db, PutRoute(route=route))
            db.add(row)
        await self.until_current()
        return row

    async def until_current(self) -> None:
        """Return when the proxy has everything the hub has."""
        async with asyncio.timeout(60):
            while True:
                async with self.hub.database.read() as db:
                    newest = await position(db)
                status = self.proxy.table.status
                if newest and (status.epoch, status.number) == (newest.epoch, newest.number):
                    return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def join(directory: Path, *, origin: str = "", **settings: Any) -> AsyncIterator[Joined]:
    """Run a hub and a proxy.

    Args:
        origin: Of the hub's pages; the proxy's own address without it.
        settings: Of the hub.
    """
    async with (
        open_upstream() as upstream,
        open_world(
            clock=SystemClock(),
            listen=f"unix:{directory}/public.sock",
            **settings,
        ) as world,
        contextlib.AsyncExitStack() as stack,
    ):
        hub = world.hub
        listening = bind_address(TcpAddress("127.0.0.1", 0))
        port = listening.getsockname()[1]
        proxy = Proxy(
            make_settings(
                directory,
                base_url=hub.settings.base_url,
                default_target=f"unix:{directory}/public.sock",
            ),
            hub=HubCaller(
                "unix:/nowhere",
                KEY,
                "edge",
                client=httpx.AsyncClient(
                    transport=httpx.ASGITransport(create_internal_app(hub)), base_url="http://hub"
                ),
            ),
        )
        public = _Server(
            uvicorn.Config(
                create_public_app(hub), lifespan="off", log_config=None, ws="none",
                proxy_headers=False, timeout_graceful_shutdown=1,
            )
        )  # fmt: skip
        sock = bind_address(UnixAddress(f"{directory}/public.sock"))
        tasks = TaskOwner()
        serving = tasks.start(public.serve(sockets=[sock]), name="serve")
        pusher = Pusher(
            hub,
            hub.settings.proxies[0].model_copy(update={"key": proxy.settings.control_key}),
            connect=lambda _peer: httpx.AsyncClient(
                transport=httpx.ASGITransport(proxy.control_app), base_url="http://p"
            ),
        )
        await proxy.start([listening])
        pushing = tasks.start(pusher.run(), name="push")
        clients: list[httpx.AsyncClient] = []
        try:
            joined = Joined(
                hub, proxy, port, upstream, origin or f"http://127.0.0.1:{port}", clients
            )
            await joined.until_current()
            yield joined
        finally:
            for client in clients:
                await client.aclose()
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)
            await proxy.stop()
            public.should_exit = True
            await serving
            await stack.aclose()
