"""SQLite without a thread for each statement: see decision 16.

A statement that an index answers takes microseconds; handing it to a thread and waiting for it
takes many times that. So statements run where they are asked for, on the event loop's own thread.
What can wait for the disk or for another process does not: a commit, which syncs, and a `BEGIN
IMMEDIATE` that finds the database locked, are given to a thread.
"""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from sqlalchemy import event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import await_only

from carrel_hub.db.patience import patience_left

CHECKPOINT_PAGES = 1000
"""How long the journal may grow before it is brought into the file: SQLite's own choice."""


class InlineDialect(SQLiteDialect_pysqlite):
    """The standard library's `sqlite3`, to be used by an asynchronous engine."""

    driver = "inline"
    is_async = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[AsyncAdaptedQueuePool]:
        return AsyncAdaptedQueuePool

    def do_begin(self, dbapi_connection: Any) -> None:
        dbapi_connection.driver_connection.begin()

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        cursor.execute(statement, parameters)
        await_only(_at_once())  # the engine takes a statement that awaits nothing for a mistake

    def do_executemany(
        self, cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        cursor.executemany(statement, parameters)
        await_only(_at_once())


async def _at_once() -> None: ...


DIALECT = InlineDialect()
"""For statements that are compiled once, whichever database of this kind they are for."""

registry.register("sqlite.inline", __name__, InlineDialect.__name__)


class InlineCursor(sqlite3.Cursor):
    """A cursor as the asynchronous engine expects it."""

    async def _async_soft_close(self) -> None:
        """Nothing was fetched ahead, and what is left can be fetched at any time."""


class InlineConnection(sqlite3.Connection):
    """A connection for the loop's own thread. The driver never begins transactions by itself."""

    def begin(self) -> None:
        self.execute("BEGIN")

    def cursor(self, factory: Any = InlineCursor) -> Any:
        return super().cursor(factory)


class WriterConnection(InlineConnection):
    """A connection that leaves the loop's thread for what may take long."""

    _thread: ThreadPoolExecutor | None = None
    _changes_before = -1
    _syncs = True

    def begin(self) -> None:
        """Begin to write for SQLAlchemy; nothing to do in a `Transaction`, which has begun."""
        if not self.in_transaction:
            await_only(self.begin_immediately())

    async def begin_immediately(self, *, lasting: bool = True) -> None:
        """Begin to write, at once if nobody else does.

        Args:
            lasting: What is committed outlasts the power.

        Raises:
            sqlite3.OperationalError: Another process went on writing for too long.
        """
        left = patience_left()
        self._sync(lasting)
        try:
            self.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            await self._aside(partial(self._begin_patiently, left))
        self._changes_before = self.total_changes

    def commit(self) -> None:
        await_only(self.commit_aside())

    async def commit_aside(self) -> None:
        """Commit. Where nothing is to sync no thread is asked."""
        if not self.in_transaction:
            return
        if self._syncs and self.total_changes != self._changes_before:
            await self._aside(self._commit)
        else:
            self._commit()

    def _commit(self) -> None:
        super().commit()

    def _sync(self, lasting: bool) -> None:
        """Have commits reach the disk, or the kernel alone. The next that syncs takes all along."""
        if self._syncs != lasting:
            self.execute(f"PRAGMA synchronous={'FULL' if lasting else 'NORMAL'}")
            # A checkpoint syncs whatever is set, and is left to a commit that does so in a thread.
            self.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES if lasting else 0}")
            self._syncs = lasting

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
        super().close()

    def _begin_patiently(self, seconds: float) -> None:
        self.execute(f"PRAGMA busy_timeout={seconds * 1000:.0f}")
        try:
            self.execute("BEGIN IMMEDIATE")
        finally:
            self.execute("PRAGMA busy_timeout=0")

    async def _aside(self, work: Any) -> None:
        """Run `work` in the connection's thread. Who is cancelled meanwhile waits for its end."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "sqlite-writer")
        done = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait([done])
            raise


def open_reader(url: URL) -> InlineConnection:
    """Return a connection of its own that can only read, for single statements.

    Raises:
        sqlite3.Error: There is no such file, or it is no database.
    """
    connection = sqlite3.connect(
        url.database or "", timeout=0, check_same_thread=False, isolation_level=None,
        factory=InlineConnection,
    )  # fmt: skip
    connection.execute("PRAGMA query_only=ON")
    return connection


def sqlite_engine(url: URL, *, size: int, writable: bool) -> AsyncEngine:
    """Return an engine of connections that either only read or all write.

    Args:
        url: Any SQLAlchemy URL of an SQLite file, whatever driver it names.
        size: The most connections at a time; who needs one more waits.
    """
    engine = create_async_engine(
        url.set(drivername="sqlite+inline"),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=30,
        connect_args={
            "factory": WriterConnection if writable else InlineConnection,
            "check_same_thread": False,
            "isolation_level": None,
            "timeout": 0,
        },
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        for pragma in (
            "foreign_keys=ON",
            "journal_mode=WAL" if writable else "query_only=ON",
            "synchronous=FULL",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine
