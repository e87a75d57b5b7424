"""`carrel-hub db backup`: one moment of the database, while the hub goes on, and its keys."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Table, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from carrel_hub import __version__
from carrel_hub.backup.archive import FORMAT, HEAD, BackupError, new_archive
from carrel_hub.backup.files import files_of
from carrel_hub.backup.rows import as_json, tables_of
from carrel_hub.db.engine import Database
from carrel_hub.db.expected import REVISIONS, SchemaError, schema_revision
from carrel_shared.clock import Clock

OF_PROCESSES = frozenset({"proxies", "replicas", "leases", "identity_counter"})
"""Tables about who runs now, which means nothing later."""

_AT_ONCE = 1000
"""Rows that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup has in it."""

    revision: str
    rows: int
    files: int


async def back_up(database: Database, state_dir: Path, path: Path, clock: Clock) -> Summary:
    """Write a backup to `path`.

    Raises:
        BackupError: It cannot be written.
        SchemaError: There is nothing to back up, or it is of a newer Carrel.
    """
    revision = await schema_revision(database)
    if revision is None:
        raise SchemaError("the database is empty: there is nothing to back up")
    if revision not in REVISIONS:
        raise SchemaError(f"the database has schema {revision}, which this Carrel does not know")
    rows = files = 0
    with new_archive(path) as archive:
        made_at = clock.now().isoformat()
        head = {"revision": revision, "made_at": made_at, "version": __version__}
        archive.add({HEAD: FORMAT, **head})
        try:
            for line in files_of(state_dir):
                archive.add(line)
                files += 1
        except OSError as error:
            raise BackupError(f"{error.filename}: {error.strerror}") from error
        async with database.read() as session:
            connection = await session.connection()
            for table in await connection.run_sync(tables_of):
                if table.name in OF_PROCESSES:
                    continue
                async for row in _rows(connection, table):
                    archive.add({"table": table.name, "row": as_json(row)})
                    rows += 1
    return Summary(revision, rows, files)


async def _rows(connection: AsyncConnection, table: Table) -> AsyncIterator[dict[str, Any]]:
    key = list(table.primary_key.columns)
    statement = table.select().order_by(*key).limit(_AT_ONCE)
    page = (await connection.execute(statement)).all()
    while page:
        for row in page:
            yield row._asdict()
        last = [row._mapping[column] for column in key]
        page = (await connection.execute(statement.where(tuple_(*key) > last))).all()
