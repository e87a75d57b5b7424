"""The hub's pages in front of a real database, browsers to visit them, and a carrel-pam to ask."""

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
from fastapi import Depends, FastAPI
from hub.world import World, open_world
from sqlmodel import col, select

from carrel_hub.auth.links import create_link
from carrel_hub.auth.subjects import Subject, current_subject
from carrel_hub.context import Hub
from carrel_hub.db.models import BrowserSession, Event, RouteChange, Server, Token, User
from carrel_hub.errors import HubError
from carrel_hub.failures import contract_error, install_failures
from carrel_hub.late_routes import LateRouter, add_routes
from carrel_hub.oauth.internal import router as access_router
from carrel_hub.oauth.routes import router as oauth_router
from carrel_hub.oauth.token import router as token_router
from carrel_hub.spawns.service import ensure_server
from carrel_hub.spawns.states import State
from carrel_hub.users.accounts import get_or_create_user
from carrel_hub.web.errors import render_error
from carrel_hub.web.pages import outside_router
from carrel_hub.web.pages import router as pages_router
from carrel_shared.clock import ManualClock

ORIGIN = "http://hub.test:8000"


class FakePam:
    """Speaks carrel-pam's protocol; knows the passwords it is told."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="cpam"))
        self.passwords: dict[str, str] = {}
        self.accounts: dict[str, str] = {}
        self.asked: list[str] = []
        self.raw_reply: bytes | None = None
        self.silent = False
        self._server: asyncio.Server | None = None
        self._released = asyncio.Event()

    @property
    def address(self) -> str:
        return f"unix:{self._directory}/pam.sock"

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(
            self._serve, path=self.address.removeprefix("unix:")
        )

    async def stop(self) -> None:
        self._released.set()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def close(self) -> None:
        await self.stop()
        shutil.rmtree(self._directory)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = json.loads(await reader.readline())
            user = question["user"]
            self.asked.append(user)
            if self.silent:
                await self._released.wait()
                return
            ok = user in self.passwords and self.passwords[user] == question["password"]
            reply = {
                "ok": ok,
                "account": self.accounts.get(user, user),
                "reason": "" if ok else "no",
            }
            writer.write(self.raw_reply or json.dumps(reply).encode() + b"\n")
            await writer.drain()
        finally:
            writer.close()


class _Form(HTMLParser):
    """The forms of a page: where each goes, its hidden fields, the id of its button."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form":
            self.forms.append({"action": values["action"], "fields": {}, "button": None})
        elif tag == "input" and values.get("type") == "hidden" and self.forms:
            self.forms[-1]["fields"][values["name"]] = values["value"]
        elif tag == "button" and self.forms:
            self.forms[-1]["button"] = values.get("id")


@dataclass
class Browser:
    """A person's browser: keeps cookies, sends what browsers send, follows no redirects itself."""

    client: httpx.AsyncClient
    headers: dict[str, str] = field(
        default_factory=lambda: {
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Site": "none",
            "Accept": "text/html,*/*;q=0.8",
        }
    )

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=self.headers | _names(headers))

    async def post(self, path: str, data: dict[str, str], **headers: str) -> httpx.Response:
        sent = {**self.headers, "Sec-Fetch-Site": "same-origin", **_names(headers)}
        return await self.client.post(path, data=data, headers=sent)

    async def press(self, page: httpx.Response, button: str, **fields: str) -> httpx.Response:
        """Send the form that a button belongs to."""
        form = form_of(page, button)
        return await self.post(form["action"], form["fields"] | fields)

    async def follow(self, reply: httpx.Response) -> httpx.Response:
        """Go where a redirect leads, until there is a page of the hub or a place outside it."""
        for _ in range(10):
            if not reply.is_redirect or "/hub" not in reply.headers["location"][:5]:
                return reply
            reply = await self.get(reply.headers["location"], sec_fetch_site="same-origin")
        raise AssertionError("redirected in circles")


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {
        "-".join(part.capitalize() for part in name.split("_")): value
        for name, value in headers.items()
    }


def form_of(page: httpx.Response, button: str) -> dict[str, Any]:
    """Return the form whose button has that id."""
    parser = _Form()
    parser.feed(page.text)
    for form in parser.forms:
        if form["button"] == button:
            return form
    raise AssertionError(f"no button {button!r} on the page: {page.status_code} {page.text}")


def has_element(page: httpx.Response, element_id: str) -> bool:
    return re.search(rf'\sid="{element_id}"', page.text) is not None


@dataclass
class Site:
    """A hub that people can visit."""

    world: World
    app: FastAPI
    pam: FakePam
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    @property
    def hub(self) -> Hub:
        return self.world.hub

    @property
    def clock(self) -> ManualClock:
        return self.world.clock

    def client(self, address: str = "127.0.0.1", **options: Any) -> httpx.AsyncClient:
        """Return a client with its own cookies, at that address."""
        transport = httpx.ASGITransport(self.app, client=(address, 50000))
        made = httpx.AsyncClient(transport=transport, base_url=ORIGIN, **options)
        self.clients.append(made)
        return made

    def browser(self, address: str = "127.0.0.1") -> Browser:
        return Browser(self.client(address))

    async def add_user(self, name: str, **values: Any) -> User:
        """Make a user who has a unix account, unless told otherwise."""
        values = {"account": name, **values}
        disabled = values.pop("disabled", False)
        async with self.hub.database.write() as db:
            user = await get_or_create_user(db, name, at=self.clock.now(), **values)
            user.disabled = disabled
            db.add(user)
        return user

    async def add_server(self, owner: str, state: str = State.READY, **values: Any) -> Server:
        """Put a server's row into a state."""
        user = await self.world.user(owner)
        async with self.hub.database.write() as db:
            row = await ensure_server(db, user, at=self.clock.now())
            values = {"state": str(state), "ready_at": self.clock.now(), **values}
            for name, value in values.items():
                setattr(row, name, value)
            db.add(row)
        return row

    async def new_link(self, name: str) -> str:
        """Return the path of a new sign-in link."""
        user = await self.world.user(name)
        async with self.hub.database.write() as db:
            return (await create_link(db, self.hub, user)).path

    async def signed_in(self, name: str, **values: Any) -> Browser:
        """Return the browser of somebody who has just signed in."""
        await self.add_user(name, **values)
        browser = self.browser()
        link = await self.new_link(name)
        reply = await browser.press(await browser.get(link), "sign-in")
        assert reply.status_code == 302
        return browser

    async def all(self, table: type[Any]) -> list[Any]:
        async with self.hub.database.read() as db:
            return list((await db.exec(select(table))).all())

    async def sessions(self) -> list[BrowserSession]:
        return await self.all(BrowserSession)

    async def tokens(self) -> list[Token]:
        return await self.all(Token)

    async def changes(self) -> list[dict[str, Any]]:
        """Return what proxies were told, in order."""
        return [row.payload for row in await self.all(RouteChange)]

    async def events(self, kind: str) -> list[Event]:
        async with self.hub.database.read() as db:
            statement = select(Event).where(Event.kind == kind).order_by(col(Event.id))
            return list((await db.exec(statement)).all())


_who_router = LateRouter()


@_who_router.api_route("/who", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def _who(subject: Subject = Depends(current_subject)) -> dict[str, str]:  # noqa: B008
    return {"name": subject.name, "kind": subject.kind}


def build_app(hub: Hub) -> FastAPI:
    """Join the routers as the hub's applications do, with one call of the API to try."""
    app = FastAPI(redirect_slashes=False, openapi_url=None)
    app.state.hub = hub
    prefix = hub.settings.hub_prefix.rstrip("/")

    def answer(request: Any, status: int, _code: str, message: str, headers: dict[str, str]) -> Any:
        if request.url.path.startswith(f"{prefix}/api/"):
            return contract_error(status, message, headers)
        return render_error(request, status, message or None, headers=headers)

    install_failures(app, answer)
    add_routes(app, _who_router, f"{prefix}/api")
    add_routes(app, oauth_router, f"{prefix}/api")
    add_routes(app, token_router, f"{prefix}/api")
    add_routes(app, access_router)
    add_routes(app, pages_router, prefix)
    add_routes(app, outside_router, hub.settings.base_url.rstrip("/"))
    return app


@asynccontextmanager
async def open_site(**settings: Any) -> AsyncIterator[Site]:
    """Make a site and take it apart again."""
    pam = FakePam()
    auth = {
        "pam_socket": pam.address,
        "allowed_users": ["alice", "bob"],
        **settings.pop("auth", {}),
    }
    try:
        await pam.start()
        async with open_world(auth=auth, **settings) as world:
            site = Site(world, build_app(world.hub), pam)
            yield site
            for client in site.clients:
                await client.aclose()
    finally:
        await pam.close()


__all__ = ["ORIGIN", "Browser", "FakePam", "HubError", "Site", "build_app", "form_of", "open_site"]
