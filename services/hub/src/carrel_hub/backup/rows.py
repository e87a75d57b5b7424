"""Rows of any revision of the schema as JSON and back, by what the database says of its columns."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Boolean, DateTime, Integer, MetaData, Table, func, select, text
from sqlalchemy.engine import Connection

VERSION_TABLE = "alembic_version"


def tables_of(connection: Connection) -> list[Table]:
    """Return every table that holds data, each after those it refers to."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != VERSION_TABLE]


def as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row for a backup; times in UTC, as text."""
    return {
        name: _in_utc(value).isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def from_json(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as its table takes it."""
    found = dict(row)
    for column in table.columns:
        value = found.get(column.name)
        if isinstance(column.type, DateTime) and isinstance(value, str):
            found[column.name] = datetime.fromisoformat(value)
        elif isinstance(column.type, Boolean) and value is not None:
            found[column.name] = bool(value)
    return found


def go_on_counting(connection: Connection, tables: list[Table]) -> None:
    """Have PostgreSQL give new rows numbers after those that were put in. SQLite does by itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in tables:
        for column in table.primary_key.columns:
            counted = connection.scalar(
                select(func.pg_get_serial_sequence(table.name, column.name))
            )
            if counted is None or not isinstance(column.type, Integer):
                continue
            highest = connection.scalar(select(func.max(column)))
            if highest is not None:
                connection.execute(
                    text("SELECT setval(:name, :at)"), {"name": counted, "at": highest}
                )


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
