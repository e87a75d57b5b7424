"""One transaction that may write.

To code it is a session of SQLAlchemy's. On SQLite it holds the driver's one writing connection from
its beginning, and what is asked by `db.asking` goes to that directly; the session's own machinery
joins in once somebody uses it, on the same connection and in the same transaction.
"""

import sqlite3
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.drafts import Draft, forget, take_work, wait_in
from carrel_hub.db.identity import RAISE
from carrel_hub.db.sqlite import DIALECT, WriterConnection
from carrel_hub.db.writes import Statement, write_of


class Transaction(AsyncSession):
    """See above. What is changed in drafts is written before anything else is asked."""

    driver: WriterConnection | None = None
    """SQLite's; None elsewhere."""

    _due: list[Draft] | None = None
    _rights_changed = False

    def keep(self, draft: Draft) -> None:
        """Write a draft from now on, whenever it is changed."""
        if self._due is None:
            self._due = []
        wait_in(draft, self._due)

    async def settle(self) -> None:
        """Write what was changed so far, in the order in which that began."""
        while self._due:
            if (work := take_work(self._due.pop(0))) is not None:
                await self.change(*work)
        if self.in_transaction() and (self.new or self.dirty or self.deleted):
            await super().flush()

    async def change(self, statement: Statement, *rows: Mapping[str, Any]) -> Any:
        """Execute a statement that is a constant; return a result with `rowcount` and rows."""
        if self.driver is None:
            connection = await super().connection()
            return await connection.execute(statement, list(rows) if len(rows) > 1 else {**rows[0]})
        write = write_of(statement, rows[0], DIALECT)
        try:
            done = write.run(self.driver, rows)
        except sqlite3.Error as error:
            raise as_sqlalchemy(error) from error
        self._rights_changed |= write.changes_rights and done.rowcount != 0
        return done

    async def finish(self) -> None:
        """Write what is left, and commit on SQLite; elsewhere whoever began it does."""
        await self.settle()
        if self.driver is None:
            return
        try:
            if self._rights_changed:
                self.driver.execute(RAISE)
            if self.in_transaction():
                await super().commit()
            else:
                await self.driver.commit_aside()
        except sqlite3.Error as error:
            raise as_sqlalchemy(error) from error

    # -- the session's own ways, which must find in the database what drafts say

    async def flush(self, *args: Any, **options: Any) -> None:
        await self.settle()

    async def exec(self, *args: Any, **options: Any) -> Any:
        await self.settle()
        return await super().exec(*args, **options)

    async def execute(self, *args: Any, **options: Any) -> Any:
        await self.settle()
        return await super().execute(*args, **options)

    async def get(self, *args: Any, **options: Any) -> Any:
        await self.settle()
        return await super().get(*args, **options)

    async def get_one(self, *args: Any, **options: Any) -> Any:
        await self.settle()
        return await super().get_one(*args, **options)

    async def connection(self, *args: Any, **options: Any) -> Any:
        await self.settle()
        return await super().connection(*args, **options)

    def add(self, instance: object, *args: Any, **options: Any) -> None:
        if not isinstance(instance, Draft):  # which is kept already
            super().add(instance, *args, **options)

    async def delete(self, instance: object) -> None:
        if isinstance(instance, Draft):
            forget(instance)
        else:
            await super().delete(instance)


def as_sqlalchemy(error: sqlite3.Error) -> DBAPIError:
    """Return the error that SQLAlchemy would have raised for one of the driver's."""
    made = DBAPIError.instance(None, None, error, sqlite3.Error)
    assert isinstance(made, DBAPIError)  # noqa: S101 - of an error of the driver's it is one
    return made
