"""`carrel-hub db restore`: a database and its keys as they were, and a new beginning for proxies.

Everything happens in one transaction. What came after the backup is not known to this database, but
agents and proxies know of it: proxies are given the whole table under a new epoch, and generations
go on from what agents report, never below (`spawns.transitions`, `spawns.actions`).
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from alembic import command
from sqlalchemy import ColumnElement, delete, func, inspect, literal_column, select, update
from sqlalchemy.engine import Connection
from sqlmodel import col

from carrel_hub.backup.archive import BackupError, read_archive
from carrel_hub.backup.files import differing, put_files
from carrel_hub.backup.rows import VERSION_TABLE, from_json, go_on_counting, tables_of
from carrel_hub.db.engine import Database
from carrel_hub.db.expected import REVISIONS
from carrel_hub.db.migrate import alembic_config
from carrel_hub.db.models import (
    BrowserSession,
    Event,
    LoginAttempt,
    OAuthCode,
    RouteCounter,
    Server,
    SignInLink,
    Token,
)
from carrel_hub.events import CONSOLE_ACTOR
from carrel_hub.routing.changes import new_epoch
from carrel_shared.clock import Clock

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Contents:
    """What a backup holds, beside its rows."""

    path: Path
    revision: str
    made_at: str
    files: dict[str, bytes]
    rows: int


def inspect_backup(path: Path) -> Contents:
    """Read a backup through to its end, and return what is in it.

    Raises:
        BackupError: It cannot be used.
    """
    lines = read_archive(path)
    head = next(lines)
    revision = str(head.get("revision"))
    if revision not in REVISIONS:
        raise BackupError(
            f"{path} has schema {revision}, which this hub does not know: it was made by a newer"
            " Carrel; restore it with that one"
        )
    files, rows = {}, 0
    for line in lines:
        if "file" in line:
            files[str(line["file"])] = base64.b64decode(line["content"])
        else:
            rows += 1
    return Contents(path, revision, str(head.get("made_at")), files, rows)


async def restore(
    database: Database,
    state_dir: Path,
    contents: Contents,
    clock: Clock,
    *,
    replace: bool = False,
    keep_sessions: bool = False,
) -> None:
    """Put a backup into a database and its keys into the state directory. No hub may run meanwhile.

    Args:
        replace: Remove what is there.
        keep_sessions: Leave people signed in who were when the backup was made, those included who
            have signed out since.

    Raises:
        BackupError: Something is there already, or a key cannot be written.
    """
    if not replace and (others := differing(state_dir, contents.files)):
        raise BackupError(
            f"{state_dir / others[0]} is there already and is another one; restore with --replace"
            " if it may go"
        )
    async with database.engine.begin() as connection:
        await connection.run_sync(_make_room, replace)
        await connection.run_sync(_fill, contents)
        await connection.run_sync(_begin_anew, contents, clock, keep_sessions)
        try:
            put_files(state_dir, contents.files)
        except OSError as error:
            raise BackupError(f"{error.filename}: {error.strerror}") from error


def _make_room(connection: Connection, replace: bool) -> None:
    tables = tables_of(connection)
    replicas = next((table for table in tables if table.name == "replicas"), None)
    if replicas is not None and connection.dialect.name == "postgresql":
        since: ColumnElement[object] = literal_column("clock_timestamp() - interval '10 seconds'")
        seen = select(replicas.c.address).where(replicas.c.seen_at > since)
        if (address := connection.scalar(seen.limit(1))) is not None:
            who = f"the hub at {address}" if address else "a hub that is starting"
            raise BackupError(f"{who} runs on this database; stop it first")
    users = next((table for table in tables if table.name == "users"), None)
    if users is not None and not replace:
        known = connection.scalar(select(func.count()).select_from(users)) or 0
        if known:
            raise BackupError(
                f"the database has {known} users already; restore with --replace if all that is in"
                " it may go"
            )
    for table in reversed(tables):
        table.drop(connection)
    if inspect(connection).has_table(VERSION_TABLE):
        connection.exec_driver_sql(f"DROP TABLE {VERSION_TABLE}")


def _fill(connection: Connection, contents: Contents) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, contents.revision)
    tables = {table.name: table for table in tables_of(connection)}
    lines = (line for line in read_archive(contents.path) if "table" in line)
    for name, group in groupby(lines, key=lambda line: str(line["table"])):
        if name not in tables:
            raise BackupError(f"{contents.path} has a table {name!r} that no hub had")
        table = tables[name]
        for rows in _batches(group):
            connection.execute(table.insert(), [from_json(table, row) for row in rows])
    go_on_counting(connection, list(tables.values()))
    command.upgrade(config, "head")


def _batches(lines: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while rows := [line["row"] for line in islice(lines, _AT_ONCE)]:
        yield rows


def _begin_anew(
    connection: Connection, contents: Contents, clock: Clock, keep_sessions: bool
) -> None:
    """Let nothing that was used up or ended since be good again, and give routes a new lineage."""
    gone = [OAuthCode, SignInLink, LoginAttempt]
    for model in gone if keep_sessions else [*gone, BrowserSession]:
        connection.execute(delete(model))
    if not keep_sessions:
        connection.execute(delete(Token).where(col(Token.session_hash).is_not(None)))
    connection.execute(update(RouteCounter).values(epoch=new_epoch(), begun_at=clock.now()))
    connection.execute(update(Server).values(driver=""))
    connection.execute(
        Event.__table__.insert().values(  # type: ignore[attr-defined]
            at=clock.now(),
            kind="database.restored",
            actor=CONSOLE_ACTOR,
            subject="database",
            message=f"The database was restored from a backup of {contents.made_at}.",
            data={},
        )
    )
