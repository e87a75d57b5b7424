"""PostgreSQL, as the hub wants it: writers one at a time, and nothing that waits for ever.

Every transaction that may write begins by taking one advisory lock of the database, so writers of
all replicas follow one another exactly as SQLite's do: what a transaction has read stays true until
it commits, nothing has to be tried again, and there are no deadlocks. Readers never wait.
"""

from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, ExceptionContext
from sqlalchemy.exc import DataError, DisconnectionError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from carrel_hub.db.patience import WRITE_SECONDS, patience_left

WRITE_LOCK = int.from_bytes(b"carrel", "big")
"""The advisory lock of whoever writes."""

CONNECT_SECONDS = 5.0
CALL_SECONDS = 15.0
"""How long one statement may take. A server that hangs is then told from one that is slow."""

_NEARLY_ALL = WRITE_SECONDS - 0.1

_DATA_EXCEPTION = "22"
"""How PostgreSQL's codes begin for values that cannot be stored or compared."""

_DRIVERS_OWN = (asyncpg.InterfaceError, asyncpg.InternalClientError)

_READ_ONLY = "25006"
"""PostgreSQL's code for a write where nothing can be written: a primary that is one no more."""

_SERVER_SETTINGS = {
    "application_name": "carrel-hub",
    "jit": "off",
    "lock_timeout": f"{WRITE_SECONDS * 1000:.0f}ms",
    "statement_timeout": "12s",
    # A process that was stopped in the middle of a write is cut off before others give up on it.
    "idle_in_transaction_session_timeout": "3s",
}


def postgres_engines(url: URL, *, hurried: bool) -> tuple[AsyncEngine, AsyncEngine]:
    """Return what writes and what reads.

    Args:
        hurried: Give up on what takes long. Not for migrations and backups.
    """
    arguments: dict[str, Any] = {"timeout": CONNECT_SECONDS, "async_creator_fn": _connect}
    if hurried:
        arguments |= {"command_timeout": CALL_SECONDS, "server_settings": _SERVER_SETTINGS}
    writer = _engine(url, arguments, size=4)
    event.listen(writer.sync_engine, "begin", _take_write_lock)
    reader = _engine(url, arguments, size=8).execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )
    return writer, reader


def _engine(url: URL, arguments: dict[str, Any], *, size: int) -> AsyncEngine:
    engine = create_async_engine(
        url, pool_size=size, max_overflow=0, pool_timeout=WRITE_SECONDS, connect_args=arguments
    )
    event.listen(engine.sync_engine, "checkout", _leave_dead_ones)
    event.listen(engine.sync_engine, "handle_error", _name_what_is_wrong)
    return engine


def _take_write_lock(connection: Connection) -> None:
    take, left = f"pg_advisory_xact_lock({WRITE_LOCK})", patience_left()
    if left < _NEARLY_ALL:  # it waited for the connection before
        take = f"set_config('lock_timeout', '{left * 1000:.0f}ms', true), {take}"
    connection.exec_driver_sql(f"SELECT {take}")


def _leave_dead_ones(connection: Any, _record: Any, _proxy: Any) -> None:
    """Take another connection than one the server has closed. Costs no call, as a ping would."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError("the server has closed this connection")


def _name_what_is_wrong(context: ExceptionContext) -> None:
    """Tell apart what SQLAlchemy does not: a server out of reach, a value no column can hold."""
    error = context.original_exception
    cause = error.__cause__ or error  # what the driver raised
    reason = Exception(str(cause) or "the database does not answer in time")
    if _is_away(cause) or _is_away(error):
        context.is_disconnect = True
        raise OperationalError(context.statement, None, reason, hide_parameters=True) from error
    code = getattr(cause, "sqlstate", None) or ""
    if code == _READ_ONLY:
        # Whoever connects anew is led to the primary there is now.
        context.is_disconnect = True
    if code.startswith(_DATA_EXCEPTION) or isinstance(cause, ValueError):
        raise DataError(context.statement, None, reason, hide_parameters=True) from error


def _is_away(error: BaseException) -> bool:
    """Whether a connection is lost, such as one that the server ended for being idle.

    Asked between its last word and the connection's end, the driver takes itself for confused.
    """
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error)
    lost = OSError | asyncpg.PostgresConnectionError | asyncpg.InternalClientError
    return isinstance(error, lost)  # TimeoutError is the first


async def _connect(*args: Any, **options: Any) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(*args, **options)
    except (OSError, asyncpg.PostgresError, *_DRIVERS_OWN) as error:
        # One that starts, ends, or is a standby yet says so in an error of its own.
        reason = str(error) or f"nobody answered within {CONNECT_SECONDS:g} seconds"
        raise asyncpg.PostgresConnectionError(reason) from error
