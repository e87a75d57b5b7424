"""Nothing that SQLite has committed is lost with the power (FLT-D6)."""

import os

import pytest
from sqlmodel import SQLModel, col, select

from carrel_hub.db.asking import by_key
from carrel_hub.db.engine import Database
from carrel_hub.db.models import Group
from carrel_shared.clock import SystemClock
from support.disks import LosesPower

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a file system is mounted by root")
NAMED = by_key(Group, "name")


async def a_database(disk: LosesPower) -> Database:
    """Return one with every table, which the power cannot take any more."""
    database = Database(f"sqlite:///{disk.path}/hub.sqlite")
    async with database.engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    disk.sync()
    return database


async def groups_when_the_power_is_back(disk: LosesPower) -> list[str]:
    disk.lose_power()
    after = Database(f"sqlite:///{disk.path}/hub.sqlite")
    async with after.read() as session:
        names = (await session.exec(select(Group.name).order_by(col(Group.id)))).all()
    await after.close()
    return list(names)


@as_root
async def test_a_committed_row_is_there_when_the_power_is_back() -> None:
    with LosesPower() as disk:
        database = await a_database(disk)
        names = [f"group{number}" for number in range(20)]
        for name in names:
            async with database.write() as session:
                session.add(Group(name=name, created=SystemClock().now()))
        assert await groups_when_the_power_is_back(disk) == names
        await database.close()


@as_root
async def test_what_need_not_last_is_committed_and_lasts_with_what_follows() -> None:
    with LosesPower() as disk:
        database = await a_database(disk)
        for name, lasting in (("hasty", False), ("steady", True)):
            async with database.write(lasting=lasting) as session:
                session.add(Group(name=name, created=SystemClock().now()))
            assert await database.fetch_one(NAMED, key=name) is not None
        assert await groups_when_the_power_is_back(disk) == ["hasty", "steady"]
        await database.close()
