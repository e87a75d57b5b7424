"""PostgreSQL that is slow, away, or comes back, and writers who meet."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from hub.world import make_settings
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import SQLModel, col, select

from carrel_hub.db import patience, postgres
from carrel_hub.db.engine import Database
from carrel_hub.db.models import Group
from carrel_hub.failures import install_failures, internal_error
from carrel_hub.replicas.link import Link, LinkLostError
from carrel_shared.clock import SystemClock
from support.postgres import Postgres, run_postgres

ONE = text("SELECT 1")
IDLE = "idle_in_transaction_session_timeout"
CUT_OFF = f"{IDLE} = '{postgres._SERVER_SETTINGS[IDLE]}'"


@pytest.fixture
async def shared(postgres_server: Postgres) -> AsyncIterator[tuple[Database, Database]]:
    """Two replicas' views of one database."""
    async with postgres_server.database() as url:
        one, other = Database(url), Database(url)
        async with one.engine.begin() as connection:
            await connection.run_sync(SQLModel.metadata.create_all)
        yield one, other
        await one.close()
        await other.close()


async def test_what_a_writer_read_stays_true_until_it_commits(
    shared: tuple[Database, Database],
) -> None:
    """A hundred increments by two replicas, each read first, are a hundred."""
    now = SystemClock().now()
    async with shared[0].write() as session:
        session.add(Group(name="g", properties={"n": 0}, created=now))

    async def count_one(database: Database) -> None:
        async with database.write() as session:
            group = (await session.exec(select(Group))).one()
            group.properties = {"n": group.properties["n"] + 1}
            session.add(group)

    await asyncio.gather(*(count_one(shared[n % 2]) for n in range(100)))
    async with shared[1].read() as session:
        assert (await session.exec(select(Group.properties))).one() == {"n": 100}


@pytest.mark.parametrize("waited", [0.0, 2.0, 60.0])
async def test_what_a_writer_waited_for_a_connection_it_does_not_wait_for_the_lock(
    shared: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch, waited: float
) -> None:
    """FLT-D3: all waits together are bounded, however many writers there are before."""
    times = iter([100.0, 100.0 + waited])
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: next(times)))
    async with shared[0].write() as session:
        limit = (await session.exec(select(text("current_setting('lock_timeout')")))).one()
    expected = {0.0: "1min", 2.0: "58s", 60.0: "100ms"}[waited]  # of the tests' own minute
    assert limit == expected


async def test_readers_do_not_wait_for_writers(shared: tuple[Database, Database]) -> None:
    async with shared[0].write() as writer:
        writer.add(Group(name="g", created=SystemClock().now()))
        await writer.flush()
        async with shared[1].read() as session:
            assert (await session.exec(select(Group))).all() == []


async def test_a_writer_that_hangs_is_cut_off_and_the_others_go_on(
    shared: tuple[Database, Database],
) -> None:
    async def hang() -> None:
        async with shared[0].write() as session:
            await (await session.connection()).execute(text(f"SET {CUT_OFF}"))
            async with shared[1].write() as other:  # waits until the first is cut off
                other.add(Group(name="g", created=SystemClock().now()))
            await (await session.connection()).execute(ONE)

    with pytest.raises(DBAPIError):
        await hang()
    async with shared[0].read() as session:
        assert (await session.exec(select(Group.name))).all() == ["g"]


async def test_connections_that_the_server_closed_are_not_used_again(
    shared: tuple[Database, Database],
) -> None:
    async with shared[0].read() as session:
        await session.exec(select(Group))
        raw = (await (await session.connection()).get_raw_connection()).driver_connection
    kill = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with shared[1].engine.connect() as connection:
        await connection.execute(kill)
    async with asyncio.timeout(60):
        while not raw.is_closed():  # type: ignore[union-attr]  # noqa: ASYNC110 - the kernel tells
            await asyncio.sleep(0.01)
    async with shared[0].read() as session:
        assert (await session.exec(select(Group))).all() == []
    async with shared[0].write() as session:
        session.add(Group(name="g", created=SystemClock().now()))


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_ends_meanwhile_is_a_database_that_is_away(
    postgres_server: Postgres, shared: tuple[Database, Database], turns: int
) -> None:
    """Whatever of its end this process has seen by then, as one that had to wait has."""

    async def end(pid: int) -> None:
        await postgres_server.execute(f"SELECT pg_terminate_backend({pid}, 60000)")

    async def lose() -> None:
        async with shared[0].read() as session:
            pid = (await session.exec(select(text("pg_backend_pid()")))).one()
            ending = threading.Thread(target=lambda: asyncio.run(end(pid)))
            ending.start()
            ending.join()  # and this loop stands still
            for _ in range(turns):
                await asyncio.sleep(0)

    with pytest.raises(OperationalError):
        await lose()
    async with shared[0].read() as session:
        assert (await session.exec(select(Group))).all() == []


async def test_what_a_database_objects_to_is_said_to_whoever_asked(
    shared: tuple[Database, Database],
) -> None:
    """A name that is taken is a conflict, what no column holds is the caller's mistake."""
    app = FastAPI()
    install_failures(app, internal_error)
    now = SystemClock().now()

    @app.get("/taken")
    async def taken() -> None:
        async with shared[0].write() as session:
            session.add_all([Group(name="g", created=now), Group(name="g", created=now)])

    @app.get("/large")
    async def large() -> None:
        async with shared[0].read() as session:
            await session.exec(select(Group).where(Group.id == 2**40))

    @app.get("/nul")
    async def nul() -> None:
        async with shared[0].read() as session:
            await session.exec(select(Group).where(col(Group.name) == "a\0b"))

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
        for path, status in (("/taken", 409), ("/large", 400), ("/nul", 400)):
            reply = await client.get(path)
            assert reply.status_code == status, path
            assert "postgres" not in reply.text.lower()
            assert "asyncpg" not in reply.text.lower()


async def test_a_server_that_is_away_is_an_error_of_the_database_and_back_when_it_is() -> None:
    """FLT-D1, without waiting in the test for what the server's end takes."""
    with run_postgres() as server:
        async with server.database() as url:
            database = Database(url)
            async with database.read() as session:
                await (await session.connection()).execute(ONE)
            server.kill(signal.SIGKILL)
            for _ in range(2):
                with pytest.raises(OperationalError):
                    async with database.read() as session:
                        await (await session.connection()).execute(ONE)
            await asyncio.to_thread(server.come_back)
            async with database.read() as session:
                await (await session.connection()).execute(ONE)
            await database.close()


def test_settings_take_an_address_as_people_write_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    settings = make_settings(tmp_path, database_url="postgresql://hub:secret@db.test/carrel")
    assert settings.effective_database_url == "postgresql+asyncpg://hub:secret@db.test/carrel"
    assert "secret" not in repr(settings)
    with pytest.raises(ValueError, match="mysql"):
        make_settings(tmp_path, database_url="mysql://hub:secret@db.test/carrel")


async def test_standbys_without_a_primary_are_a_database_that_is_away() -> None:
    """The driver has an error of its own for it, and one more for a server that starts or ends."""
    with run_postgres() as server:
        await server.set("default_transaction_read_only", "on")
        url = f"{server.url('postgres')}&target_session_attrs=read-write"
        database = Database(url)
        with pytest.raises(OperationalError):
            async with database.read() as session:
                await session.exec(ONE)  # type: ignore[call-overload]
        link = Link(url, lambda _hints: None)
        with pytest.raises(LinkLostError):
            await link.beat("me")
        await server.set("default_transaction_read_only", "off")
        async with database.read() as session:
            await session.exec(ONE)  # type: ignore[call-overload]
        await link.close()
        await database.close()
