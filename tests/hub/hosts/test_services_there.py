"""Services that the settings put on hosts of other machines, and how proxies find them."""

from collections.abc import AsyncIterator

import pytest
from hub.hosts.conftest import NewMachine, Token
from hub.world import World, open_world
from sqlmodel import select

from carrel_hub.db.models import AgentHost, ServiceRun
from carrel_hub.errors import ConflictError
from carrel_hub.hosts.keeping import remove_host
from carrel_hub.services.runs import RunState
from carrel_hub.startup import apply_settings
from carrel_shared.wire.routes import Route

SERVICES = [
    {"name": "notes", "command": ["notes"], "url": "http://127.0.0.1:9000", "host": "rack-1"},
    {"name": "local", "command": ["local"], "url": "http://127.0.0.1:9001"},
]
NOTES, LOCAL = "/services/notes/", "/services/local/"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with open_world(
        fleet_listen="0.0.0.0:8444", services=SERVICES, api_url="http://127.0.0.1/hub/api"
    ) as made:
        await apply_settings(made.hub)
        yield made


async def routes(world: World) -> dict[str, Route]:
    await world.push()
    return {route.prefix: route for route in world.proxy.routes.values()}


async def the_run(world: World) -> ServiceRun:
    async with world.hub.database.read() as session:
        statement = select(ServiceRun).where(ServiceRun.service == "notes")
        return (await session.exec(statement)).one()


async def test_it_has_a_route_through_the_relay_once_its_host_has_joined(
    world: World, machine: NewMachine, token: Token
) -> None:
    found = await routes(world)
    assert NOTES not in found, "9000 here is somebody else's port"
    assert found[LOCAL].targets == ["http://127.0.0.1:9001"]
    assert (await the_run(world)).host == "rack-1"
    one = machine()
    await one.join(await token("rack-1"))
    found = await routes(world)
    assert (found[NOTES].targets, found[NOTES].host_id) == (["https://192.0.2.7:8446"], "rack-1")
    await one.join(await token("rack-1"), address="192.0.2.8")
    assert (await routes(world))[NOTES].targets == ["https://192.0.2.8:8446"]
    world.proxy.epoch = ""  # a proxy that begins anew is given the whole table
    assert (await routes(world))[NOTES].host_id == "rack-1"


async def test_it_keeps_its_host_until_that_is_silent(
    world: World, machine: NewMachine, token: Token
) -> None:
    one = machine()
    await one.join(await token("rack-1"))
    await one.report()
    async with world.hub.database.write() as session:
        run = await session.get_one(ServiceRun, (await the_run(world)).id)
        run.state = RunState.READY
        session.add(run)
    with pytest.raises(ConflictError, match="the service notes runs on host rack-1"):
        await remove(world)
    world.clock.advance(60)
    await remove(world)
    assert (await the_run(world)).state == RunState.STOPPED
    assert NOTES not in await routes(world)


async def remove(world: World) -> None:
    async with world.hub.database.write() as session:
        host = await session.get_one(AgentHost, "rack-1")
        await remove_host(session, world.hub, host, actor="user:boss")
