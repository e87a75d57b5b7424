"""The databases that hubs of the tests have: SQLite, and PostgreSQL where it makes a difference."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import text
from sqlmodel import SQLModel

import carrel_hub.db.models  # noqa: F401 - fills the metadata
from carrel_hub.db.engine import Database
from carrel_hub.db.expected import REVISIONS
from support.postgres import TEMPLATE, Postgres

PACKAGES_ON_BOTH = (
    "db",
    "events",
    "groups",
    "hosts",
    "internal",
    "oauth",
    "routing",
    "shares",
    "spawns",
    "tokens",
    "users",
)
"""Of the tests below `tests/hub`, those that are run on both."""

_MAKERS = {
    *(
        "world",
        "live",
        "new_person",
        "site",
        "database",
        "backend",
        "open_world",
        "open_site",
        "new_hub",
    ),
}
"""The names of fixtures and functions that make a database."""

postgres: Postgres | None = None
"""The server to make databases on; None for SQLite."""

_templates: set[int] = set()
_sqlite: dict[str, bytes] = {}


def is_for_both(path: Path, function: Callable[..., object], fixtures: list[str]) -> bool:
    """Whether a test is one to run on both databases."""
    names = {*fixtures, *function.__code__.co_names}
    return path.parent.name in PACKAGES_ON_BOTH and not names.isdisjoint(_MAKERS)


@asynccontextmanager
async def open_database(directory: Path, *, tables: bool = True) -> AsyncIterator[str]:
    """Have a new database of the kind the test is for, and yield its address.

    Args:
        directory: Where it is, if it is a file.
        tables: Have every table in it.
    """
    server = postgres
    if server is None:
        url = f"sqlite:///{directory / 'hub.sqlite'}"
        if tables:
            (directory / "hub.sqlite").write_bytes(await _sqlite_template())
        yield url
    else:
        if tables:
            await _make_template(server)
        async with server.database(TEMPLATE if tables else "template0") as url:
            yield url


@asynccontextmanager
async def empty_database() -> AsyncIterator[Database]:
    """Have a database without tables, of the kind the test is for."""
    directory = Path(tempfile.mkdtemp(prefix="chub"))
    try:
        async with open_database(directory, tables=False) as url:
            made = Database(url, hurried=False)
            yield made
            await made.close()
    finally:
        shutil.rmtree(directory)


async def _sqlite_template() -> bytes:
    """Return a database with every table, as a file has it."""
    if not _sqlite:
        directory = Path(tempfile.mkdtemp(prefix="chub"))
        file = directory / "hub.sqlite"
        await _make_tables(f"sqlite:///{file}")
        _sqlite["tables"] = file.read_bytes()
        shutil.rmtree(directory)
    return _sqlite["tables"]


async def _make_template(server: Postgres) -> None:
    if id(server) not in _templates:
        await server.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
        await _make_tables(server.url(TEMPLATE))
        _templates.add(id(server))


async def _make_tables(url: str) -> None:
    database = Database(url)
    try:
        async with database.engine.begin() as connection:
            await connection.run_sync(SQLModel.metadata.create_all)
            await connection.execute(text("CREATE TABLE alembic_version (version_num text)"))
            insert = text("INSERT INTO alembic_version VALUES (:newest)")
            await connection.execute(insert, {"newest": REVISIONS[-1]})
    finally:
        await database.close()
