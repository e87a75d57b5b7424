"""What is deleted, or replaced, while servers start."""

import pytest
from hub.fakes import FakeProxy
from hub.users.conftest import NewPerson
from hub.world import World
from sqlmodel import select

from carrel_hub.db.models import Event, Server, User
from carrel_hub.spawns.line import let_in
from carrel_shared.wire.servers import ServerState


@pytest.fixture
async def slow(live: World) -> World:
    """A hub whose servers never come up by themselves, and whose answers do not wait for them."""
    live.agent.instant = False
    live.change_settings(slow_spawn_seconds=0, slow_stop_seconds=20, allow_named_servers=True)
    return live


async def all_servers(world: World) -> list[Server]:
    async with world.hub.database.read() as session:
        return list((await session.exec(select(Server))).all())


async def until_launched(world: World, count: int) -> None:
    while len(world.agent.launches) < count:
        await world.hub.wakeups.wait(1)


async def test_a_user_who_is_deleted_leaves_no_start_behind(
    new_person: NewPerson, slow: World
) -> None:
    root, bob = await new_person("root-of-hub", admin=True), await new_person("bob")
    assert (await bob.post("/users/bob/server")).status_code == 202
    assert (await bob.post("/users/bob/servers/lab")).status_code == 202
    await until_launched(slow, 2)
    assert (await root.delete("/users/bob")).status_code == 204
    assert {report.state for report in slow.agent.servers.values()} == {ServerState.STOPPED}
    assert await all_servers(slow) == []
    async with slow.hub.database.read() as session:
        assert (await session.exec(select(User).where(User.name == "bob"))).first() is None
        statement = select(Event.actor).where(Event.kind == "server.stop_requested")
        assert set((await session.exec(statement)).all()) == {"user:root-of-hub"}
    reply = await slow.report()
    assert sorted(reply.forget) == sorted(slow.agent.servers), "its host may forget them"


async def test_a_record_that_is_removed_while_it_starts_goes_with_its_process(
    new_person: NewPerson, slow: World
) -> None:
    bob = await new_person("bob")
    assert (await bob.post("/users/bob/servers/lab")).status_code == 202
    await until_launched(slow, 1)
    removed = await bob.request("DELETE", "/users/bob/servers/lab", json={"remove": True})
    assert removed.status_code == 204
    assert await all_servers(slow) == []
    assert {report.state for report in slow.agent.servers.values()} == {ServerState.STOPPED}
    assert (await bob.get("/users/bob/servers/lab")).status_code == 404


async def test_whoever_is_deleted_leaves_the_line(new_person: NewPerson, slow: World) -> None:
    slow.change_settings(concurrent_spawn_limit=1)
    root = await new_person("root-of-hub", admin=True)
    people = [await new_person(name) for name in ("anna", "ben", "cleo")]
    for name, person in zip(("anna", "ben", "cleo"), people, strict=True):
        assert (await person.post(f"/users/{name}/server")).status_code == 202
    assert (await root.delete("/users/ben")).status_code == 204
    assert (await root.delete("/users/anna")).status_code == 204
    await until_launched(slow, 2)
    assert [spec.user for spec in slow.agent.specs] == ["anna", "cleo"]
    assert await let_in(slow.hub) == ([], 0)


async def test_a_proxy_that_is_replaced_while_a_server_starts_gets_its_route(world: World) -> None:
    old = await world.ready("alice")
    row = await world.drive(await world.start("bob"))
    assert (row.state, row.progress) == ("starting", 90), "its route is not acknowledged yet"
    new = FakeProxy()  # with an empty disk, where the other one was
    world.proxy.switch._inner = new.switch._inner
    await world.push()
    assert (await world.drive(row)).state == "ready"
    assert new.tables == 1
    assert new.routes.keys() >= {"/user/alice/", "/user/bob/"}
    assert (await world.row(old)).state == "ready"


async def test_who_is_being_deleted_starts_nothing_meanwhile(
    new_person: NewPerson, slow: World
) -> None:
    slow.change_settings(slow_stop_seconds=0)
    slow.agent.stop_at_once = False
    root, bob = await new_person("root-of-hub", admin=True), await new_person("bob")
    assert (await bob.post("/users/bob/server")).status_code == 202
    await until_launched(slow, 1)
    assert (await root.delete("/users/bob")).status_code == 400
    assert (await bob.post("/users/bob/servers/other")).status_code == 403
    assert (await bob.get("/user")).status_code == 403
