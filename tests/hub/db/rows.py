"""Rows for databases of any revision."""

import datetime as dt
from typing import Any

from sqlalchemy import MetaData, Table, text
from sqlalchemy.engine import Connection

TIME = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def fill(connection: Connection, rows: dict[str, dict[str, Any]]) -> None:
    for table in tables(connection):
        if table.name in rows:
            connection.execute(table.insert(), rows[table.name])


_seen: dict[tuple[str, str], list[Table]] = {}


def tables(connection: Connection) -> list[Table]:
    """Return the tables there are; those of one revision are looked at once, which takes long."""
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    kind = connection.dialect.name, str(revision)
    if kind not in _seen:
        found = MetaData()
        found.reflect(connection)
        _seen[kind] = [one for one in found.sorted_tables if one.name != "alembic_version"]
    return _seen[kind]


def row_of(table: Table) -> dict[str, Any]:
    """A row that may be in any table: every number 1, every text the same, what refers refers."""
    kinds: dict[type, Any] = {
        str: "x", int: 1, float: 1.0, bool: True, dt.datetime: TIME,
        dict: {"n": 1}, object: {"n": 1},
    }  # fmt: skip
    return {column.name: kinds[column.type.python_type] for column in table.columns}


def everything(connection: Connection) -> dict[str, dict[str, Any]]:
    """The one row of each table, times as one reads them on either kind of database."""
    rows = {table.name: connection.execute(table.select()) for table in tables(connection)}
    return {
        name: {
            column: value.replace(tzinfo=None) if isinstance(value, dt.datetime) else value
            for column, value in row._mapping.items()
        }
        for name, found in rows.items()
        if (row := found.one_or_none()) is not None
    }
