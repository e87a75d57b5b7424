"""Nothing that SQLite has committed is lost with the power (FLT-D6)."""

import os

import pytest
from sqlmodel import SQLModel, col, select

from carrel_hub.db.engine import Database
from carrel_hub.db.models import Group
from carrel_shared.clock import SystemClock
from support.disks import LosesPower


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system is mounted by root")
async def test_a_committed_row_is_there_when_the_power_is_back() -> None:
    with LosesPower() as disk:
        url = f"sqlite:///{disk.path}/hub.sqlite"
        database = Database(url)
        async with database.engine.begin() as connection:
            await connection.run_sync(SQLModel.metadata.create_all)
        disk.sync()
        names = [f"group{number}" for number in range(20)]
        for name in names:
            async with database.write() as session:
                session.add(Group(name=name, created=SystemClock().now()))
        disk.lose_power()
        after = Database(url)
        async with after.read() as session:
            assert (await session.exec(select(Group.name).order_by(col(Group.id)))).all() == names
        await after.close()
        await database.close()
