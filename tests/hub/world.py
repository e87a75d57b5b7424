"""A hub with a real database in a short directory, and fake neighbours. Driven step by step."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from hub.backends import open_database
from hub.fakes import FakeAgent, FakeProxy
from sqlmodel import col, select

from carrel_hub.context import Hub
from carrel_hub.db.engine import Database
from carrel_hub.db.models import Event, Server, User
from carrel_hub.hosts.fleet import open_authority
from carrel_hub.routing.changes import ensure_counter
from carrel_hub.routing.desired import origin
from carrel_hub.routing.push import Pusher
from carrel_hub.settings import HubSettings
from carrel_hub.spawns.agents import AgentClients
from carrel_hub.spawns.reconciler import Reconciler
from carrel_hub.spawns.reports import receive_report
from carrel_hub.spawns.service import request_start, request_stop
from carrel_hub.spawns.states import PENDING
from carrel_hub.users.accounts import get_or_create_user
from carrel_shared.clock import Clock, ManualClock
from carrel_shared.tasks import TaskOwner
from carrel_shared.wire.agents import AgentReportReply


@dataclass
class World:
    """The hub and its neighbours."""

    hub: Hub
    clock: ManualClock
    agent: FakeAgent
    proxy: FakeProxy
    reconciler: Reconciler
    pusher: Pusher

    async def start(self, name: str = "alice", **options: Any) -> Server:
        """Ask for a server, as a request would."""
        async with self.hub.database.write() as session:
            user = await get_or_create_user(session, name, at=self.clock.now(), account=name)
            return await request_start(session, self.hub, user, actor=f"user:{name}", **options)

    async def stop(self, row: Server) -> None:
        """Ask for its end."""
        async with self.hub.database.write() as session:
            current = await session.get_one(Server, row.id)
            await request_stop(session, self.hub, current, actor="user:alice", reason="enough")

    def change_settings(self, **changes: Any) -> None:
        """Have the hub go by other settings from now on."""
        changed = self.hub.settings.model_copy(update=changes)
        changed.__dict__.pop("role_book", None)  # it was made of the roles there were
        object.__setattr__(self.hub, "settings", changed)
        self.hub.known.forget()

    async def report(self) -> AgentReportReply:
        """Have the agent report."""
        return await receive_report(self.hub, self.agent.name, self.agent.report())

    async def push(self) -> None:
        """Have the pusher take one turn."""
        await self.pusher.turn()

    async def drive(self, row: Server) -> Server:
        """Take steps for one server until it waits."""
        for _ in range(50):
            done, _at = await self.reconciler.step(row.id)
            if done:
                return await self.row(row)
        raise AssertionError("the reconciler does not come to rest")

    async def settle(self, row: Server) -> Server:
        """Take steps and push until nothing changes any more."""
        await self.drive(row)
        await self.push()
        return await self.drive(row)

    async def ready(self, name: str = "alice") -> Server:
        """Have a server that is ready."""
        await self.report()
        row = await self.settle(await self.start(name))
        assert row.state == "ready"
        return row

    async def row(self, row: Server) -> Server:
        """Read a server's row again."""
        async with self.hub.database.read() as session:
            return await session.get_one(Server, row.id)

    async def events(self, row: Server) -> list[str]:
        """Return the kinds of a server's events, in order."""
        async with self.hub.database.read() as session:
            statement = select(Event.kind).where(Event.server_id == row.id).order_by(col(Event.id))
            return list((await session.exec(statement)).all())

    async def user(self, name: str) -> User:
        async with self.hub.database.read() as session:
            return (await session.exec(select(User).where(User.name == name))).one()

    async def pending(self) -> list[str]:
        async with self.hub.database.read() as session:
            statement = select(Server.id).where(col(Server.state).in_(PENDING))
            return list((await session.exec(statement)).all())


def make_settings(directory: Path, **changes: Any) -> HubSettings:
    """Return settings with one agent and one proxy."""
    values: dict[str, Any] = {
        "listen": f"unix:{directory}/hub.sock",
        "internal_listen": f"unix:{directory}/internal.sock",
        "state_dir": directory,
        "console_key": "c" * 32,
        "agents": [
            {"name": "local", "url": "127.0.0.1:1", "key": "k" * 32, "caller_key": "K" * 32}
        ],
        "proxies": [
            {"name": "edge", "url": "127.0.0.1:1", "key": "p" * 32, "caller_key": "P" * 32}
        ],
    }
    return HubSettings(**{**values, **changes})


@asynccontextmanager
async def open_world(
    *,
    clock: Clock | None = None,
    agent: FakeAgent | None = None,
    proxy: FakeProxy | None = None,
    **changes: Any,
) -> AsyncIterator[World]:
    """Make a world and take it apart again."""
    directory = Path(tempfile.mkdtemp(prefix="chub"))
    try:
        async with open_database(directory) as url:
            settings = make_settings(directory, database_url=url, **changes)
            async with _open_world(settings, clock, agent, proxy) as world:
                yield world
    finally:
        shutil.rmtree(directory)


@asynccontextmanager
async def _open_world(
    settings: HubSettings,
    clock: Clock | None,
    agent: FakeAgent | None,
    proxy: FakeProxy | None,
) -> AsyncIterator[World]:
    database = Database(settings.effective_database_url)
    agent, proxy = agent or FakeAgent(), proxy or FakeProxy()
    used = clock or ManualClock()
    clients = AgentClients(
        settings.agents,
        connect=lambda _peer: httpx.AsyncClient(transport=agent.switch, base_url="http://agent"),
    )
    hub = Hub(settings, database, used, TaskOwner(), agents=clients)
    try:
        async with database.write() as session:
            await ensure_counter(session, origin(settings), at=used.now())
        await open_authority(hub, make=settings.fleet_listen is not None)
        pusher = Pusher(
            hub,
            settings.proxies[0],
            connect=lambda _peer: httpx.AsyncClient(transport=proxy.switch, base_url="http://p"),
        )
        yield World(hub, used, agent, proxy, Reconciler(hub), pusher)  # type: ignore[arg-type]
        await pusher.close()
    finally:
        hub.wakeups.stop()
        await hub.tasks.close()
        await clients.close()
        await database.close()
