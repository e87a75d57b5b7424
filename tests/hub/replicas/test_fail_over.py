"""Another PostgreSQL takes over."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from carrel_hub.db.engine import Database
from support.postgres import run_postgres


async def test_writers_go_to_whichever_server_takes_writes() -> None:
    """FLT-D4: a fail-over, after which the old primary still answers and is read-only."""
    with run_postgres() as old, run_postgres() as new:
        await new.set("default_transaction_read_only", "on")
        hosts = f"host={old.directory}:5432&host={new.directory}:5432"
        url = old.url("postgres").partition("?")[0]
        database = Database(f"{url}?{hosts}&target_session_attrs=read-write")

        async def write() -> str:
            async with database.engine.begin() as connection:
                await connection.execute(text("CREATE TABLE IF NOT EXISTS t (n int)"))
                return str(await connection.scalar(text("SHOW unix_socket_directories")))

        assert await write() == str(old.directory)
        await old.set("default_transaction_read_only", "on")
        await new.set("default_transaction_read_only", "off")
        with pytest.raises(DBAPIError):
            await write()
        assert await write() == str(new.directory)
        await database.close()
