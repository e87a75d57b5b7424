"""Numbers, acknowledgements, and the whole table when they do not fit."""

from hub.world import World, open_world
from sqlmodel import select

from carrel_hub.context import ROUTES
from carrel_hub.db.models import ProxyStatus, RouteChange
from carrel_hub.routing import changes
from carrel_hub.routing.changes import append_change, ensure_counter, position, revoke
from carrel_hub.routing.reach import reached_number
from carrel_shared.wire.routes import DeleteRoute, Revocation


async def _append(world: World, *prefixes: str) -> None:
    async with world.hub.database.write() as session:
        for prefix in prefixes:
            await append_change(session, DeleteRoute(prefix=prefix))


async def _status(world: World) -> ProxyStatus:
    async with world.hub.database.read() as session:
        return await session.get_one(ProxyStatus, "edge")


async def test_a_new_proxy_gets_the_whole_table_with_the_hubs_own_route(world: World) -> None:
    await world.push()
    assert world.proxy.tables == 1
    assert world.proxy.routes["/"].targets == [world.hub.settings.listen]
    assert not world.proxy.routes["/"].server


async def test_changes_are_pushed_in_order_as_changes(world: World) -> None:
    await world.push()
    await _append(world, "/a/", "/b/")
    await _append(world, "/c/")
    await world.push()
    assert (world.proxy.tables, world.proxy.changes, world.proxy.number) == (1, 1, 3)
    status = await _status(world)
    assert (status.number, status.away) == (3, False)


async def test_a_proxy_that_lost_its_table_gets_the_whole_again(world: World) -> None:
    await world.push()
    await _append(world, "/a/")
    await world.push()
    world.proxy.epoch, world.proxy.number = "", 0
    await _append(world, "/b/")
    await world.push()
    assert (world.proxy.tables, world.proxy.number) == (2, 2)


async def test_a_revocation_reaches_the_proxy(world: World) -> None:
    await world.push()
    async with world.hub.database.write() as session:
        await revoke(session, Revocation(user="alice"))
    await world.push()
    assert world.proxy.revoked == [Revocation(user="alice")]


async def test_a_commit_that_changes_routes_rings_the_pushers_and_a_rollback_does_not(
    world: World,
) -> None:
    rung: list[str] = []
    world.hub.database.on_route_change(lambda: rung.append("ring"))
    try:
        async with world.hub.database.write() as session:
            await append_change(session, DeleteRoute(prefix="/a/"))
            raise KeyError
    except KeyError:
        pass
    assert rung == []
    await _append(world, "/a/")
    assert rung == ["ring"]
    async with world.hub.database.read() as session:
        found = await position(session)
    assert found is not None
    assert found.number == 1


async def test_a_proxy_with_a_gap_is_sent_the_whole_table_and_asks_only_once(world: World) -> None:
    await world.push()
    async with world.hub.database.write() as session:
        status = await session.get_one(ProxyStatus, "edge")
        status.epoch = ""
        session.add(status)
    await world.hub.wakeups.notify(ROUTES)
    await world.push()
    await world.push()
    assert world.proxy.tables == 2


async def test_an_idle_proxy_is_greeted_now_and_then_and_nothing_is_written(world: World) -> None:
    await world.push()
    before = await _status(world)
    for _ in range(10):
        await world.push()
    assert world.proxy.greetings == 1
    world.clock.advance(6)
    await world.push()
    assert world.proxy.greetings == 2
    assert (await _status(world)).seen_at == before.seen_at


async def test_nothing_waits_for_a_proxy_that_is_away_and_it_counts_again_when_back(
    world: World,
) -> None:
    await world.push()
    await _append(world, "/a/")
    async with world.hub.database.read() as session:
        assert await reached_number(session, ["edge"]) == 0
    world.proxy.switch.down = True
    await world.push()
    async with world.hub.database.read() as session:
        assert await reached_number(session, ["edge"]) == 1
    world.proxy.switch.down = False
    await world.push()
    status = await _status(world)
    assert (status.away, status.number) == (False, 1)


async def test_a_proxy_far_behind_gets_the_table_and_old_changes_are_dropped(
    world: World,
) -> None:
    await world.push()
    for _ in range(16):
        await _append(world, *["/a/"] * 160)
    await world.push()
    assert (world.proxy.tables, world.proxy.changes) == (2, 0)
    async with world.hub.database.read() as session:
        kept = (await session.exec(select(RouteChange.number))).all()
    assert max(kept) == 2560
    assert min(kept) > 2560 - changes.KEPT_CHANGES - 1


async def test_another_address_of_the_hub_begins_a_new_epoch() -> None:
    async with open_world() as world:
        async with world.hub.database.write() as session:
            same = await ensure_counter(session, "/ unix:/x")
        async with world.hub.database.write() as session:
            again = await ensure_counter(session, "/ unix:/x")
            other = await ensure_counter(session, "/jup/ unix:/x")
        assert same == again
        assert other.epoch != same.epoch
        assert other.number == same.number


async def test_a_table_of_a_thousand_servers_is_whole(world: World) -> None:
    from carrel_hub.db.models import Server, User

    async with world.hub.database.write() as session:
        now = world.clock.now()
        for number in range(1000):
            session.add(User(id=number + 1, name=f"u{number}", account="x", created=now))
        await session.flush()
        for number in range(1000):
            session.add(
                Server(
                    id=f"{number:012x}",
                    user_id=number + 1,
                    client_id=f"c{number}",
                    state="ready",
                    address="unix:/x",
                    route_number=1,
                    created=now,
                )
            )
        await append_change(session, DeleteRoute(prefix="/a/"))
    await world.push()
    assert len(world.proxy.routes) == 1001
