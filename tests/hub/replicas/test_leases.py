"""What one replica does alone is taken over when it is gone; its late writes are not taken."""

import asyncio
from pathlib import Path

import pytest
from hub.replicas.conftest import another, silence
from hub.world import World
from sqlmodel import select

from carrel_hub.backup.archive import BackupError
from carrel_hub.backup.make import back_up
from carrel_hub.backup.restore import inspect_backup, restore
from carrel_hub.context import ROUTES
from carrel_hub.db.models import Lease, Server
from carrel_hub.replicas.beating import Beating
from carrel_hub.replicas.leases import hold, take_over
from carrel_hub.replicas.link import Link
from carrel_hub.replicas.presence import (
    UnlikeReplicasError,
    forget_the_gone,
    hub_targets,
    join,
    leave,
    show,
)
from carrel_hub.spawns.outcomes import Outcomes
from carrel_hub.spawns.service import request_stop


async def test_a_lease_changes_hands_when_its_holder_is_silent(world: World) -> None:
    async with another(world) as other:
        await join(other)
        assert await hold(world.hub, "proxy:edge")
        assert await hold(world.hub, "proxy:edge")
        await silence(world, world.hub, 0)
        assert not await hold(other, "proxy:edge")
        await silence(world, world.hub, 4)
        assert await hold(other, "proxy:edge")
        await join(world.hub)  # it is back, under another id
        await silence(world, other, 0)
        assert not await hold(world.hub, "proxy:edge")
        async with world.hub.database.read() as session:
            lease = (await session.exec(select(Lease))).one()
        assert (lease.holder, lease.fence) == (other.database.replica, 2)
        await leave(other)
        assert await hold(world.hub, "proxy:edge")


async def test_whose_connection_is_gone_is_given_one_second_and_not_three(world: World) -> None:
    """A process that is killed closes its connection; one that is merely busy does not."""
    link = Link(world.hub.settings.effective_database_url, lambda _: None)
    async with another(world) as other:
        await join(other)
        assert await hold(world.hub, "proxy:edge")
        assert (await link.beat(world.hub.database.replica)).known
        await silence(world, world.hub, 1)
        assert not await hold(other, "proxy:edge")
        await link.close()
        async with asyncio.timeout(60):
            while not await hold(other, "proxy:edge"):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.02)


async def test_of_many_that_ask_at_once_one_holds_the_lease(world: World) -> None:
    async with another(world) as other:
        await join(other)
        held = await asyncio.gather(*(hold(hub, "x") for hub in (world.hub, other) * 10))
        assert sum(held) == 10


async def test_a_server_is_driven_by_one_and_late_writes_of_the_last_are_not_taken(
    world: World,
) -> None:
    async with another(world) as other:
        await join(other)
        row = await world.start("alice")
        assert row.driver == world.hub.database.replica
        await silence(world, world.hub, 0)
        assert await take_over(other, [(row.id, row.driver)]) == set()
        await silence(world, world.hub, 4)
        assert await take_over(other, [(row.id, row.driver)]) == {row.id}
        taken = await world.row(row)
        assert (taken.driver, taken.fence) == (other.database.replica, row.fence + 1)
        async with Outcomes(world.hub).same(row) as (_, current):
            assert current is None
        async with Outcomes(other).same(taken) as (_, current):
            assert current is not None
        done, _ = await world.reconciler.step(row.id)
        assert done
        assert (await world.row(row)).host is None


async def test_whoever_takes_a_request_drives(world: World) -> None:
    async with another(world) as other:
        await join(other)
        row = await world.ready("alice")
        async with other.database.write() as session:
            current = await session.get_one(Server, row.id)
            await request_stop(session, other, current, actor="user:alice", reason="enough")
        assert (await world.row(row)).driver == other.database.replica


async def test_proxies_know_every_replica(world: World) -> None:
    await world.push()
    async with another(world) as other, another(world, 3) as third:
        for hub in (other, third):
            await join(hub)
        await world.push()
        assert len(world.proxy.routes["/"].targets) == 1  # they do not serve yet
        for hub in (other, third):
            await show(hub)
        await world.push()
        names = [Path(target).name for target in world.proxy.routes["/"].targets]
        assert names == ["hub.sock", "hub2.sock", "hub3.sock"]
        await leave(third)
        await silence(world, other, 20)
        await forget_the_gone(world.hub)
        await world.push()
        names = [Path(target).name for target in world.proxy.routes["/"].targets]
        assert names == ["hub.sock"]
        await leave(world.hub)  # the last one leaves its address
        async with world.hub.database.read() as session:
            assert len(await hub_targets(session)) == 1


async def test_a_replica_with_other_settings_is_refused_by_name(world: World) -> None:
    async with another(world, base_url="/other/") as other:
        with pytest.raises(UnlikeReplicasError, match=r"another hub\.base_url"):
            await join(other)
        await leave(world.hub)
        await silence(world, world.hub, 20)
        await join(other)


async def test_no_database_is_restored_below_a_running_hub(world: World, tmp_path: Path) -> None:
    hub = world.hub
    await back_up(hub.database, tmp_path, tmp_path / "backup", world.clock)
    contents = inspect_backup(tmp_path / "backup")
    with pytest.raises(BackupError, match=r"hub\.sock runs on this database; stop it first"):
        await restore(hub.database, tmp_path, contents, world.clock, replace=True)
    await silence(world, hub, 20)
    await restore(hub.database, tmp_path, contents, world.clock, replace=True)


async def test_hints_reach_other_replicas_and_silence_is_noticed(world: World) -> None:
    async with another(world) as other:
        await join(other)
        for hub in (world.hub, other):
            hub.tasks.start(Beating(hub).run(), name="heartbeat")
        with other.wakeups.watch("0123456789ab") as watch:
            async with asyncio.timeout(60):
                while not watch.take():
                    await world.hub.wakeups.notify("0123456789ab")
                    await watch.wait(0.1)
        with other.wakeups.watch(ROUTES) as watch:
            async with asyncio.timeout(60):
                await world.ready("alice")
                while ROUTES not in watch.take():
                    await watch.wait(1)
        before = other.database.replica
        await silence(world, other, 20)
        async with asyncio.timeout(60):
            while other.database.replica == before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
