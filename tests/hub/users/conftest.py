"""The public application with its reconciler and pusher running, and people with tokens."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import httpx
import pytest
from hub.fakes import FakeAgent
from hub.world import World, open_world

from carrel_hub.app import create_public_app
from carrel_hub.auth.tokens import issue_token
from carrel_hub.spawns.reconciler import Reconciler
from carrel_hub.users.accounts import get_or_create_user
from carrel_shared.clock import SystemClock

NewPerson = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def live() -> AsyncIterator[World]:
    """A hub that works by itself, on the machine's clock."""
    agent = FakeAgent()
    async with open_world(clock=SystemClock(), agent=agent, slow_spawn_seconds=60) as world:
        await world.report()
        world.hub.tasks.start(Reconciler(world.hub).run(), name="reconciler")
        world.hub.tasks.start(world.pusher.run(), name="push")
        yield world


@pytest.fixture
async def new_person(live: World) -> AsyncIterator[NewPerson]:
    """Make a user and return a client with that user's token; `None` for nobody."""
    clients = []

    async def make(
        name: str | None,
        *,
        admin: bool = False,
        account: str | None = "",
        scopes: list[str] | None = None,
        expired: bool = False,
    ) -> httpx.AsyncClient:
        headers = {}
        if name is not None:
            async with live.hub.database.write() as session:
                user = await get_or_create_user(
                    session,
                    name,
                    at=live.hub.clock.now(),
                    account=name if account == "" else account,
                    admin=admin,
                )
                new = await issue_token(
                    session,
                    live.hub,
                    user,
                    actor="hub",
                    scopes=scopes or ["inherit"],
                    expires_in=timedelta(seconds=-1) if expired else None,
                )
            headers["Authorization"] = f"token {new.secret}"
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=create_public_app(live.hub)),
            base_url="http://hub/hub/api",
            headers=headers,
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.aclose()
