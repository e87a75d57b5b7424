"""Rows for databases of any revision."""

import datetime as dt
from typing import Any

from sqlalchemy import MetaData, Table
from sqlalchemy.engine import Connection

TIME = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def fill(connection: Connection, rows: dict[str, dict[str, Any]]) -> None:
    for table in tables(connection):
        if table.name in rows:
            connection.execute(table.insert(), rows[table.name])


def tables(connection: Connection) -> list[Table]:
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def row_of(table: Table) -> dict[str, Any]:
    """A row that may be in any table: every number 1, every text the same, what refers refers."""
    kinds: dict[type, Any] = {
        str: "x", int: 1, float: 1.0, bool: True, dt.datetime: TIME,
        dict: {"n": 1}, object: {"n": 1},
    }  # fmt: skip
    return {column.name: kinds[column.type.python_type] for column in table.columns}


def everything(connection: Connection) -> dict[str, dict[str, Any]]:
    """The one row of each table, times as one reads them on either kind of database."""
    return {
        table.name: {
            name: value.replace(tzinfo=None) if isinstance(value, dt.datetime) else value
            for name, value in connection.execute(table.select()).one()._mapping.items()
        }
        for table in tables(connection)
        if connection.execute(table.select()).first() is not None
    }
