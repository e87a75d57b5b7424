"""A database that has forgotten something does not take away what people use (FLT-P5, FLT-D5)."""

from pathlib import Path

from hub.world import World, open_world
from sqlmodel import select

from carrel_hub.backup.make import back_up
from carrel_hub.backup.restore import inspect_backup, restore
from carrel_hub.db.models import RouteCounter
from carrel_hub.routing.guard import lost_routes
from carrel_shared.wire.routes import Access, Route, RouteTable

PEOPLE = [f"user{n:02}" for n in range(12)]


def _paths(world: World) -> set[str]:
    return {prefix for prefix in world.proxy.routes if prefix.startswith("/user/")}


async def _ready(world: World, names: list[str]) -> None:
    await world.report()
    for name in names:
        await world.drive(await world.start(name))
    await world.push()


async def _restore(world: World, path: Path, state: Path) -> None:
    contents = inspect_backup(path)
    await restore(world.hub.database, state, contents, world.clock, replace=True)


async def test_an_empty_database_takes_no_route_away_before_agents_have_reported(
    backend: str,
) -> None:
    async with open_world() as before:
        await _ready(before, PEOPLE)
        proxy = before.proxy
    assert len([path for path in proxy.routes if path.startswith("/user/")]) == len(PEOPLE)
    async with open_world(proxy=proxy) as world:
        await world.push()
        assert proxy.epoch != before.proxy.epoch or proxy.number == 0
        assert len(_paths(world)) == len(PEOPLE)
        await _ready_new(world)  # what is new works meanwhile
        assert "/user/new/" in proxy.routes
        assert len(_paths(world)) == 1  # the agent has reported, and runs none of the others


async def _ready_new(world: World) -> None:
    await world.report()
    await world.drive(await world.start("new"))
    world.clock.advance(6)  # the next greeting
    await world.push()
    world.clock.advance(6)
    await world.push()


async def test_what_was_started_after_the_backup_goes_on_until_it_is_stopped(
    world: World, tmp_path: Path
) -> None:
    await _ready(world, ["alice", "bob"])
    stopped = await world.settle(await world.start("carol"))
    await world.stop(stopped)
    await world.settle(stopped)
    await back_up(world.hub.database, tmp_path, tmp_path / "backup", world.clock)
    carol = await world.settle(await world.start("carol"))
    await world.push()
    secret = world.proxy.routes["/user/carol/"].access
    assert _paths(world) == {"/user/alice/", "/user/bob/", "/user/carol/"}

    world.clock.advance(60)
    await _restore(world, tmp_path / "backup", tmp_path / "state")
    await world.push()
    assert _paths(world) == {"/user/alice/", "/user/bob/", "/user/carol/"}
    world.clock.advance(6)
    await world.report()
    await world.push()
    met = await world.row(carol)
    assert (met.state, met.generation) == ("unknown", carol.generation)
    assert world.proxy.routes["/user/carol/"].access == secret  # it is used on
    await world.stop(met)
    await world.settle(met)
    world.clock.advance(6)
    await world.push()
    assert _paths(world) == {"/user/alice/", "/user/bob/"}
    again = await world.settle(await world.start("carol"))
    assert (again.state, again.generation) == ("ready", carol.generation + 1)
    assert "/user/carol/" in world.proxy.routes


async def test_a_database_put_back_by_hand_begins_a_new_epoch(world: World) -> None:
    """Its numbers would mean other changes than those the proxy was given."""
    await _ready(world, ["alice"])
    async with world.hub.database.write() as session:
        counter = (await session.exec(select(RouteCounter))).one()
        epoch, counter.number = counter.epoch, counter.number - 1
    world.clock.advance(6)
    await world.push()
    assert world.proxy.epoch != epoch
    assert "/user/alice/" in world.proxy.routes


def test_routes_that_move_or_that_nobody_used_are_not_lost() -> None:
    def server(prefix: str, number: int) -> Route:
        access = Access(server_id=f"{number:012}", client_id="c", secret="s")
        return Route(prefix=prefix, targets=["unix:/s"], access=access, server=True)

    def table(epoch: str, *routes: Route) -> RouteTable:
        return RouteTable(epoch=epoch, number=1, routes=list(routes))

    hub = Route(prefix="/", targets=["unix:/hub"])
    there = table("old", hub, server("/user/a/", 1), server("/user/b/", 2), server("/user/c/", 3))
    new = table("new", server("/jup/user/a/", 1), server("/user/b/", 4))
    assert lost_routes(new, there) == {"/user/c/": "000000000003"}
    assert lost_routes(new, table("")) == {}
