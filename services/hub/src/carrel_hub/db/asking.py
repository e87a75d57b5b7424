"""Prepared statements (`db.prepared`) within a transaction, and rows that are only looked at.

What a transaction asks costs a session twenty times of what the database needs for it. So it asks
by statements that are compiled once, on its own connection: the answer has everything the
transaction has changed so far.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import Insert, bindparam
from sqlalchemy import select as columns
from sqlmodel import SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.drafts import Draft, new_draft
from carrel_hub.db.prepared import Prepared
from carrel_hub.db.sqlite import DIALECT
from carrel_hub.db.transaction import Transaction, as_sqlalchemy
from carrel_hub.db.writes import Statement

T = TypeVar("T")
M = TypeVar("M", bound=SQLModel)

_DRIVER = "driver_connection"
_NOTES = "notes"


async def ask(session: AsyncSession, prepared: Prepared[T], **values: Any) -> list[T]:
    """Return the answer to a prepared statement in a transaction."""
    if isinstance(session, Transaction):
        await session.settle()
        driver: sqlite3.Connection | None = session.driver
    else:
        driver = session.info.get(_DRIVER)
    if driver is None:
        connection = await session.connection()
        if connection.dialect.name != "sqlite":
            rows = (await connection.execute(prepared.statement, values)).all()
            return [prepared.make(*row) for row in rows]
        raw = await connection.get_raw_connection()
        driver = session.info[_DRIVER] = cast("sqlite3.Connection", raw.driver_connection)
    try:
        return prepared.run(driver, DIALECT, values)
    except sqlite3.Error as error:
        raise as_sqlalchemy(error) from error


async def ask_one(session: AsyncSession, prepared: Prepared[T], **values: Any) -> T | None:
    """Return the first row of the answer, or None."""
    rows = await ask(session, prepared, **values)
    return rows[0] if rows else None


async def take(session: AsyncSession, prepared: Prepared[M], **values: Any) -> list[M]:
    """Return the rows that a statement of `to_change` finds; what is changed in them is written."""
    rows = await ask(session, prepared, **values)
    for row in rows:
        _writing(session).keep(cast("Draft", row))
    return rows


async def take_one(session: AsyncSession, prepared: Prepared[M], **values: Any) -> M | None:
    """Return the first of them, or None."""
    rows = await take(session, prepared, **values)
    return rows[0] if rows else None


def add_new(session: AsyncSession, table: type[M], **values: Any) -> M:
    """Return a new row, with the table's defaults; it is inserted when something is asked next.

    What the database would give it, such as a number, is not known.
    """
    made = new_draft(table, **values)
    _writing(session).keep(made)
    return cast("M", made)


async def do(session: AsyncSession, statement: Statement, *rows: Mapping[str, Any]) -> int:
    """Execute a statement that is a constant, with other values; return how many rows it met."""
    transaction = _writing(session)
    await transaction.settle()
    return int((await transaction.change(statement, *rows)).rowcount)


async def do_returning(
    session: AsyncSession, statement: Statement, row: Mapping[str, Any]
) -> int | None:
    """Execute such a statement with `returning(number)`; return the number, or None."""
    transaction = _writing(session)
    await transaction.settle()
    found = (await transaction.change(statement, row)).fetchone()
    return None if found is None else int(found[0])


def _writing(session: AsyncSession) -> Transaction:
    assert isinstance(session, Transaction)  # noqa: S101 - nobody changes what was begun to read
    return session


def note(session: AsyncSession, statement: Insert, row: Mapping[str, Any]) -> None:
    """Have a row inserted at the transaction's end, all of one kind at once.

    What is noted in a transaction that is rolled back is never written.
    """
    session.info.setdefault(_NOTES, {}).setdefault(statement, []).append(row)


async def write_notes(session: AsyncSession) -> None:
    """Insert what was noted; the last act of a transaction."""
    noted: dict[Insert, list[Mapping[str, Any]]] = session.info.pop(_NOTES, {})
    for statement, rows in noted.items():
        await do(session, statement, *rows)


def seen(table: type[M]) -> tuple[Sequence[Any], Callable[..., M]]:
    """Return the columns of a table, and what makes of them a row to look at and not to change."""
    names = tuple(table.model_fields)

    def make(*cells: Any) -> M:
        made: M = table.__new__(table)
        made.__dict__.update(zip(names, cells, strict=True))
        return made

    return [col(getattr(table, name)) for name in names], make


def by_key(table: type[M], key: str) -> Prepared[M]:
    """Return what finds a row to look at by one column; the value is called `key`."""
    shown, make = seen(table)
    return Prepared(columns(*shown).where(col(getattr(table, key)) == bindparam("key")), make)


def to_change(table: type[M], *keys: str) -> Prepared[M]:
    """Return what finds rows to change by some columns; the values are called like these."""
    names = tuple(table.model_fields)

    def make(*cells: Any) -> M:
        return cast("M", Draft(table, dict(zip(names, cells, strict=True)), is_new=False))

    shown = [col(getattr(table, name)) for name in names]
    where = [col(getattr(table, key)) == bindparam(key) for key in keys]
    return Prepared(columns(*shown).where(*where), make)
