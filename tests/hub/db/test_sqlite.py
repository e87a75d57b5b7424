"""SQLite on the loop's own thread: who waits, for what, and who does not."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel

from carrel_hub.db import patience, sqlite
from carrel_hub.db.engine import Database
from carrel_shared.tasks import TaskOwner

INSERT = text("INSERT INTO things VALUES (:n)")
COUNT = text("SELECT count(*) FROM things")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/some.sqlite")
    async with made.engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
        await connection.execute(text("CREATE TABLE things (n INTEGER)"))
    yield made
    await made.close()


async def count(database: Database) -> int:
    async with database.read() as session:
        connection = await session.connection()
        return int((await connection.execute(COUNT)).scalar_one())


async def add(database: Database, n: int) -> None:
    async with database.write() as session:
        await (await session.connection()).execute(INSERT, {"n": n})


async def test_reading_needs_no_thread(database: Database) -> None:
    await count(database)
    before = threading.active_count()
    assert [await count(database) for _ in range(20)] == [0] * 20
    assert threading.active_count() == before


class SlowDisk:
    """Holds commits until told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.going, self.syncing = threading.Event(), threading.Event()
        commit = sqlite3.Connection.commit
        disk = self

        class Slow(sqlite.WriterConnection):
            def _commit(self) -> None:
                disk.syncing.set()
                assert disk.going.wait(60)
                commit(self)

        monkeypatch.setattr(sqlite, "WriterConnection", Slow)

    async def is_syncing(self) -> None:
        assert await asyncio.to_thread(self.syncing.wait, 30)


async def test_a_commit_does_not_hold_the_loop(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    slow = Database(str(database.engine.url))
    writing = TaskOwner().start(add(slow, 1), name="add")
    await disk.is_syncing()
    assert await count(slow) == 0  # others read meanwhile
    disk.going.set()
    await writing
    assert await count(slow) == 1
    await slow.close()


async def test_who_is_cancelled_while_it_commits_has_committed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    slow = Database(str(database.engine.url))
    writing = TaskOwner().start(add(slow, 1), name="add")
    await disk.is_syncing()
    writing.cancel()
    asyncio.get_running_loop().call_later(0.01, disk.going.set)
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await count(slow) == 1
    await add(slow, 2)  # the connection is whole
    assert await count(slow) == 2
    await slow.close()


async def test_a_writer_waits_for_another_process_and_holds_nobody(database: Database) -> None:
    other = sqlite3.connect(str(database.engine.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = TaskOwner().start(add(database, 1), name="add")
    for _ in range(5):
        assert await count(database) == 0
    assert not writing.done()
    other.execute("ROLLBACK")
    other.close()
    await writing
    assert await count(database) == 1


async def test_a_writer_gives_up_on_another_process_in_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "WRITE_SECONDS", 0)
    other = sqlite3.connect(str(database.engine.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"):
        await add(database, 1)
    other.execute("ROLLBACK")
    other.close()
    await add(database, 1)


async def test_writers_take_turns(database: Database) -> None:
    await asyncio.gather(*(add(database, n) for n in range(20)))
    assert await count(database) == 20
