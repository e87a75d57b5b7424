"""Changes that are made often: compiled once, and executed without SQLAlchemy where that can be."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Delete, Insert, Update
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from carrel_hub.db.identity import changes_rights

Statement = Insert | Update | Delete


class Write:
    """A statement that changes rows, as SQLite's driver takes it.

    Args:
        statement: What is executed each time, with other values.
        names: Of the values that each row brings.
        dialect: SQLite's.
    """

    def __init__(self, statement: Statement, names: Sequence[str], dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=list(names))
        fixed = compiled.construct_params(_check=False)
        self.sql = str(compiled)
        self.changes_rights = changes_rights(self.sql)
        self._places = [
            (name, fixed[name], _stored(compiled.binds[name].type, dialect))
            for name in compiled.positiontup
        ]

    def run(
        self, connection: sqlite3.Connection, rows: Sequence[Mapping[str, Any]]
    ) -> sqlite3.Cursor:
        """Change the database by these rows.

        Raises:
            sqlite3.Error: It refuses.
        """
        if len(rows) == 1:
            return connection.execute(self.sql, self._given(rows[0]))
        return connection.executemany(self.sql, [self._given(row) for row in rows])

    def _given(self, row: Mapping[str, Any]) -> list[Any]:
        return [
            row.get(name, fixed) if store is None else store(row.get(name, fixed))
            for name, fixed, store in self._places
        ]


_KNOWN: dict[tuple[Statement, tuple[str, ...]], Write] = {}


def write_of(statement: Statement, row: Mapping[str, Any], dialect: Dialect) -> Write:
    """Return what executes a statement for rows like this one. It is kept, so it is a constant."""
    key = (statement, tuple(row))
    found = _KNOWN.get(key)
    if found is None:
        found = _KNOWN[key] = Write(statement, key[1], dialect)
    return found


def _stored(kind: TypeEngine[Any], dialect: Dialect) -> Any:
    """Return what makes of a value what SQLite stores, or None where that is the same."""
    return kind.dialect_impl(dialect).bind_processor(dialect)
