"""SELECTs that are asked often: compiled once, and read without a session.

SQLAlchemy builds, compiles and dresses a statement in ten to fifty times the time in which SQLite
answers it. What every request asks is therefore prepared: on SQLite its text goes to the driver
with the values put in their places, and only the columns' own conversions are applied. On
PostgreSQL, where the answer has a way to come anyhow, it is an ordinary statement.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select
from sqlalchemy.engine import Dialect

T = TypeVar("T")

_Converter = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Text:
    """A statement as one driver takes it, its parameters by position."""

    sql: str
    places: Sequence[tuple[str, Any, _Converter | None]]
    columns: Sequence[tuple[int, _Converter]]


class Prepared(Generic[T]):
    """A SELECT whose values are `bindparam`s, and what is made of each row.

    Args:
        statement: Without lists among its values.
        make: Called with the columns of each row, in their order.
    """

    def __init__(self, statement: "Select[*tuple[Any, ...]]", make: Callable[..., T]) -> None:
        self.statement = statement
        self.make = make
        self._text: _Text | None = None

    def where(self, *which: ColumnElement[bool]) -> "Prepared[T]":
        """Return the same for those rows of it alone."""
        return Prepared(self.statement.where(*which), self.make)

    def run(
        self, connection: sqlite3.Connection, dialect: Dialect, values: dict[str, Any]
    ) -> list[T]:
        """Return what SQLite answers.

        Raises:
            sqlite3.Error: It does not.
        """
        text = self._text
        if text is None:
            text = self._text = _compile(self.statement, dialect)
        given = [
            convert(values.get(name, fixed)) if convert else values.get(name, fixed)
            for name, fixed, convert in text.places
        ]
        rows = connection.execute(text.sql, given).fetchall()
        if not text.columns:
            return [self.make(*row) for row in rows]
        found = []
        for row in rows:
            cells = list(row)
            for index, read in text.columns:
                cells[index] = read(cells[index])
            found.append(self.make(*cells))
        return found


def _compile(statement: "Select[Any]", dialect: Dialect) -> _Text:
    compiled: Any = statement.compile(dialect=dialect)
    assert not compiled.post_compile_params, "a list among the values"  # noqa: S101 - see Prepared
    fixed = compiled.construct_params(_check=False)
    places = [
        (
            name,
            fixed[name],
            compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect),
        )
        for name in compiled.positiontup
    ]
    columns = [
        (index, read)
        for index, column in enumerate(statement.selected_columns)
        if (read := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
    ]
    return _Text(str(compiled), places, columns)
