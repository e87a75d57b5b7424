"""Prepared statements (`db.prepared`) within a transaction, and rows that are only looked at.

What a transaction asks costs a session twenty times of what the database needs for it. So it asks
by statements that are compiled once, on its own connection: the answer has everything the
transaction has changed so far.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import Insert, Update, bindparam
from sqlalchemy import select as columns
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.prepared import Prepared

T = TypeVar("T")
M = TypeVar("M", bound=SQLModel)

_DRIVER = "driver_connection"
_NOTES = "notes"


async def ask(session: AsyncSession, prepared: Prepared[T], **values: Any) -> list[T]:
    """Return the answer to a prepared statement in a transaction."""
    if session.new or session.dirty or session.deleted:
        await session.flush()
    connection = await session.connection()
    dialect = connection.dialect
    if dialect.name != "sqlite":
        rows = (await connection.execute(prepared.statement, values)).all()
        return [prepared.make(*row) for row in rows]
    driver: sqlite3.Connection | None = session.info.get(_DRIVER)
    if driver is None:
        driver = cast(
            "sqlite3.Connection", (await connection.get_raw_connection()).driver_connection
        )
        session.info[_DRIVER] = driver
    try:
        return prepared.run(driver, dialect, values)
    except sqlite3.Error as error:
        raise OperationalError(None, None, error) from error


async def ask_one(session: AsyncSession, prepared: Prepared[T], **values: Any) -> T | None:
    """Return the first row of the answer, or None."""
    rows = await ask(session, prepared, **values)
    return rows[0] if rows else None


async def do(session: AsyncSession, statement: Insert | Update, *rows: Mapping[str, Any]) -> Any:
    """Execute a statement that is the same each time, with other values; return its result."""
    connection = await session.connection()
    return await connection.execute(statement, list(rows) if len(rows) > 1 else dict(*rows))


def note(session: AsyncSession, statement: Insert, row: Mapping[str, Any]) -> None:
    """Have a row inserted at the transaction's end, all of one kind at once.

    What is noted in a transaction that is rolled back is never written.
    """
    session.info.setdefault(_NOTES, {}).setdefault(statement, []).append(row)


async def write_notes(session: AsyncSession) -> None:
    """Insert what was noted; the last act of a transaction."""
    noted: dict[Insert, list[Mapping[str, Any]]] = session.info.pop(_NOTES, {})
    if noted:
        await session.flush()
    for statement, rows in noted.items():
        await do(session, statement, *rows)


def seen(table: type[M]) -> tuple[Sequence[Any], Callable[..., M]]:
    """Return the columns of a table, and what makes of them a row to look at and not to change."""
    names = tuple(table.model_fields)

    def make(*cells: Any) -> M:
        made = table.model_construct(**dict(zip(names, cells, strict=True)))
        return cast("M", made)

    return [col(getattr(table, name)) for name in names], make


def by_key(table: type[M], key: str) -> Prepared[M]:
    """Return what finds a row to look at by one column; the value is called `key`."""
    shown, make = seen(table)
    return Prepared(columns(*shown).where(col(getattr(table, key)) == bindparam("key")), make)
