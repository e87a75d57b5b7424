"""Migrations and models are of one mind; databases of other versions are refused."""

from collections.abc import AsyncIterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hub.backends import empty_database
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

import carrel_hub.db.models  # noqa: F401 - fills the metadata
from carrel_hub.db.engine import Database
from carrel_hub.db.expected import REVISIONS, SchemaError, check_schema
from carrel_hub.db.migrate import alembic_config, upgrade


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with empty_database() as made:
        yield made


async def test_an_upgraded_database_has_exactly_the_tables_of_the_models(
    database: Database,
) -> None:
    await upgrade(database)
    await upgrade(database)
    await check_schema(database)

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, SQLModel.metadata))

    async with database.engine.connect() as connection:
        assert await connection.run_sync(differences) == []


def test_the_known_revisions_are_those_of_the_scripts() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS


async def test_an_empty_database_asks_for_the_upgrade(database: Database) -> None:
    with pytest.raises(SchemaError, match="run `carrel-hub db upgrade`"):
        await check_schema(database)


async def test_a_newer_database_is_refused(database: Database) -> None:
    await upgrade(database)
    async with database.engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match="newer Carrel"):
        await check_schema(database)


async def test_a_reader_cannot_write_and_sees_one_moment(database: Database) -> None:
    await upgrade(database)
    insert = text("INSERT INTO route_changes (number, payload) VALUES (1, '{}')")
    count = text("SELECT count(*) FROM route_changes")
    with pytest.raises(DBAPIError, match=r"read-?only"):
        async with database.read() as session:
            await (await session.connection()).execute(insert)
    async with database.read() as session:
        connection = await session.connection()
        before = (await connection.execute(count)).scalar_one()
        async with database.write() as writer:
            await (await writer.connection()).execute(insert)
        assert (await connection.execute(count)).scalar_one() == before


async def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    await upgrade(database)

    async def fail() -> None:
        async with database.write() as session:
            await (await session.connection()).execute(
                text("INSERT INTO route_changes (number, payload) VALUES (1, '{}')")
            )
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    async with database.read() as session:
        found = await (await session.connection()).execute(text("SELECT * FROM route_changes"))
        assert found.all() == []
