"""Rows that are read, changed and written back by statements that are compiled once.

To load, watch and flush one row as an object of the session costs twenty times of what the
database needs for it. A draft looks like the object: it has its attributes, and whoever is handed
one changes them as ever. It is written before anything else is asked in its transaction, and at its
end.
"""

from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Delete,
    Insert,
    Update,
    and_,
    bindparam,
    delete,
    insert,
    update,
)
from sqlmodel import SQLModel, col

_KEY = "key_of__{}"
"""What the value of a column of the primary key is called in these statements."""


class Draft:
    """Stands for one row.

    Args:
        table: The model whose attributes it has.
        values: All of them.
        is_new: The row is not in the database yet.
    """

    __slots__ = ("__dict__", "_changed", "_due", "_is_gone", "_is_new", "_table")

    _table: type[SQLModel]
    _changed: set[str]
    _due: "list[Draft] | None"
    _is_new: bool
    _is_gone: bool

    def __init__(self, table: type[SQLModel], values: dict[str, Any], *, is_new: bool) -> None:
        keep = object.__setattr__
        keep(self, "_table", table)
        keep(self, "_changed", set())
        keep(self, "_due", None)
        keep(self, "_is_new", is_new)
        keep(self, "_is_gone", False)
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        values = self.__dict__
        if values[name] != value:  # KeyError: the table has no such column
            values[name] = value
            _note_due(self)
            self._changed.add(name)

    def __repr__(self) -> str:
        return f"Draft({self._table.__name__} {_key_of(self)})"


def new_draft(table: type[SQLModel], **values: Any) -> Draft:
    """Return a row to be inserted, with the table's defaults."""
    made = {
        name: field.get_default(call_default_factory=True, validated_data={})
        for name, field in table.model_fields.items()
        if name not in values
    }
    return Draft(table, made | values, is_new=True)


def forget(draft: Draft) -> None:
    """Have the row deleted."""
    _note_due(draft)
    object.__setattr__(draft, "_is_gone", True)


def wait_in(draft: Draft, due: list[Draft]) -> None:
    """Have a draft put itself into a list whenever something of it is not in the database yet."""
    object.__setattr__(draft, "_due", due)
    if _is_due(draft):
        due.append(draft)


def _note_due(draft: Draft) -> None:
    """Do so; to be called before it is marked."""
    if draft._due is not None and not _is_due(draft):
        draft._due.append(draft)


def _is_due(draft: Draft) -> bool:
    return bool(draft._changed) or draft._is_new or draft._is_gone


def take_work(draft: Draft) -> tuple[Insert | Update | Delete, dict[str, Any]] | None:
    """Return what writes what is due, and its values; it then counts as written."""
    table, values, keep = draft._table, draft.__dict__, object.__setattr__
    changed, is_new, is_gone = draft._changed, draft._is_new, draft._is_gone
    keep(draft, "_changed", set())
    keep(draft, "_is_new", False)
    keep(draft, "_is_gone", False)
    if is_gone:
        return None if is_new else (_delete(table), _key_of(draft))
    if is_new:
        return _insert(table), {name: one for name, one in values.items() if one is not None}
    # Always in the order of the columns, so that the same change is the same statement.
    row = {name: values[name] for name in values if name in changed}
    return _update(table), row | _key_of(draft)


def _key_of(draft: Draft) -> dict[str, Any]:
    return {_KEY.format(name): draft.__dict__[name] for name in _key(draft._table)}


@cache
def _key(table: type[SQLModel]) -> tuple[str, ...]:
    return tuple(column.name for column in table.__table__.primary_key)  # type: ignore[attr-defined]


def _is_it(table: type[SQLModel]) -> ColumnElement[bool]:
    names = _key(table)
    return and_(*(col(getattr(table, name)) == bindparam(_KEY.format(name)) for name in names))


@cache
def _insert(table: type[SQLModel]) -> Insert:
    return insert(table)


@cache
def _update(table: type[SQLModel]) -> Update:
    return update(table).where(_is_it(table))


@cache
def _delete(table: type[SQLModel]) -> Delete:
    return delete(table).where(_is_it(table))
