"""Engines and transactions.

One request is one transaction. Writers follow one another, on SQLite over one connection that
begins immediately, on PostgreSQL by a lock (`db.postgres`), so what a transaction read before it
writes is never stale; readers have a pool that cannot write. Nothing that waits for the outside (a
stream, another service) holds a transaction.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any, TypeVar, cast

from sqlalchemy.engine import make_url
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db import patience
from carrel_hub.db.asking import write_notes
from carrel_hub.db.identity import watch
from carrel_hub.db.prepared import Prepared
from carrel_hub.db.sqlite import (
    DIALECT,
    InlineConnection,
    WriterConnection,
    open_reader,
    sqlite_engine,
)
from carrel_hub.db.transaction import Transaction, as_sqlalchemy

T = TypeVar("T")

ROUTES_CHANGED = "routes_changed"
"""Set in `session.info` by a transaction that appends to the route log."""

REPLICA = "replica"
"""In `session.info`: who writes, and so drives what it changes the target of."""

TOLD = "told"
"""Kind and data of each event of a transaction, in `session.info`."""

Told = Sequence[tuple[str, Mapping[str, Any]]]


class Database:
    """Where transactions come from.

    Args:
        url: An SQLAlchemy URL: `sqlite` or `postgresql+asyncpg`.
        hurried: Give up on what takes longer than any request should. Not for migrations.
    """

    def __init__(self, url: str, *, hurried: bool = True) -> None:
        parsed = make_url(url)
        self._sqlite = parsed.get_backend_name() == "sqlite"
        if self._sqlite:
            self._writer = sqlite_engine(parsed, size=1, writable=True)
            self._reader = sqlite_engine(parsed, size=4, writable=False)
        else:
            from carrel_hub.db.postgres import postgres_engines

            self._writer, self._reader = postgres_engines(parsed, hurried=hurried)
        self._watched = self._writer.execution_options()
        watch(self._watched.sync_engine)
        self._url = parsed
        self._asking: InlineConnection | None = None
        self._driver: WriterConnection | None = None
        self._writers = asyncio.Lock()
        self.writes = 0
        """How many transactions that may write this process has ended."""
        self.replica = ""
        """This process among the hubs on the database; `carrel_hub.replicas` gives it."""
        self._on_route_change: list[Callable[[], None]] = []
        self._on_events: list[Callable[[Told], None]] = []

    @property
    def is_sqlite(self) -> bool:
        """Whether this process has the database to itself."""
        return self._sqlite

    @property
    def engine(self) -> AsyncEngine:
        """The engine that may write, for what has the database to itself, such as a migration."""
        return self._writer

    @asynccontextmanager
    async def write(self, *, lasting: bool = True) -> AsyncIterator[AsyncSession]:
        """One transaction that may write: committed at the end, rolled back on an exception.

        On SQLite the next begins only when this one's caller goes on: who has committed comes
        first to whatever follows from it.

        Args:
            lasting: It holds even if the power goes. What would be found out anew after that, from
                rows and from those it is about, need not: SQLite is not waited for then until it
                is on the disk. No kill of a process takes it back either way.
        """
        info = {REPLICA: self.replica}
        patience.begin_to_wait()
        async with (
            self._turn() if self._sqlite else nullcontext(),
            Transaction(self._watched, expire_on_commit=False, info=info) as session,
        ):
            try:
                async with self._begun(session, lasting):
                    yield session
                    await write_notes(session)
                    await session.finish()
            finally:
                self.writes += 1
            if session.info.pop(ROUTES_CHANGED, False):
                for call in self._on_route_change:
                    call()
            if told := session.info.pop(TOLD, ()):
                for hear in self._on_events:
                    hear(told)

    @asynccontextmanager
    async def _begun(self, session: Transaction, lasting: bool) -> AsyncIterator[None]:
        if not self._sqlite:
            async with session.begin():
                yield
            return
        try:
            session.driver = await self._writing(lasting)
            yield
        except BaseException:
            self._driver = None  # SQLAlchemy may have closed it; if not, the pool has it
            if session.in_transaction():
                await session.rollback()
            with suppress(sqlite3.ProgrammingError):  # it is closed
                if session.driver is not None and session.driver.in_transaction:
                    session.driver.rollback()
            raise

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(patience.WRITE_SECONDS):
                await self._writers.acquire()
        except TimeoutError as error:
            raise PoolTimeoutError("others have been writing all the time") from error
        try:
            yield
        finally:
            self._writers.release()

    async def _writing(self, lasting: bool) -> WriterConnection:
        """Return the one connection that writes to SQLite, with a transaction begun on it."""
        if self._driver is None:
            async with self._writer.connect() as connection:
                raw = await connection.get_raw_connection()
                self._driver = cast("WriterConnection", raw.driver_connection)
        try:
            await self._driver.begin_immediately(lasting=lasting)
        except sqlite3.Error as error:
            raise as_sqlalchemy(error) from error
        return self._driver

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """One consistent view of the database that cannot write."""
        async with AsyncSession(self._reader, expire_on_commit=False) as session, session.begin():
            yield session

    async def fetch(self, prepared: Prepared[T], **values: Any) -> list[T]:
        """Return the answer to one prepared statement, as of now."""
        if self._sqlite:
            try:
                if self._asking is None:
                    self._asking = open_reader(self._url)
                return prepared.run(self._asking, DIALECT, values)
            except sqlite3.Error as error:
                raise as_sqlalchemy(error) from error
        async with self._reader.connect() as connection:
            rows = (await connection.execute(prepared.statement, values)).all()
        return [prepared.make(*row) for row in rows]

    async def fetch_one(self, prepared: Prepared[T], **values: Any) -> T | None:
        """Return the first row of the answer, or None."""
        rows = await self.fetch(prepared, **values)
        return rows[0] if rows else None

    def on_route_change(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have `call` called after each commit of this process that changed the route log.

        Returns:
            What ends that.
        """
        self._on_route_change.append(call)
        return partial(self._on_route_change.remove, call)

    def on_events(self, call: Callable[[Told], None]) -> None:
        """Have `call` told of the events of each transaction of this process, once committed."""
        self._on_events.append(call)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.close()
        self._driver = None
        await self._reader.dispose()
        await self._writer.dispose()
