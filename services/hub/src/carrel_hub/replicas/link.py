"""One connection to PostgreSQL beside the pools, for heartbeats and for hints between replicas.

What it says is never the truth: a hint that is lost costs a moment, since the numbers that each
heartbeat brings tell of the same changes.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog
from sqlalchemy.engine import make_url

from carrel_hub.context import MISSED
from carrel_hub.db.postgres import CONNECT_SECONDS
from carrel_hub.replicas import ALIVE_SECONDS, ALONE_SECONDS, GONE_SECONDS, LINK_NAME, LINKED

log = structlog.get_logger(__name__)

CHANNEL = "carrel"
LONGEST_PAYLOAD = 7000
"""PostgreSQL takes 8000 bytes; of what is longer the others are told that they missed it."""

_BEAT = f"""
-- The database's clock, which all replicas share.
WITH beat AS (
    UPDATE replicas SET seen_at = clock_timestamp(), link = pg_backend_pid()
    WHERE id = $1 AND seen_at > clock_timestamp() - interval '{ALIVE_SECONDS} seconds'
    RETURNING id
)
SELECT
    EXISTS (SELECT FROM beat) AS known,
    (SELECT string_agg(id, ' ' ORDER BY id) FROM replicas
        WHERE id <> $1
        AND seen_at > clock_timestamp() - interval '{ALIVE_SECONDS} seconds'
        AND ({LINKED} OR seen_at > clock_timestamp() - interval '{ALONE_SECONDS} seconds')
    ) AS others,
    EXISTS (SELECT FROM replicas
        WHERE seen_at <= clock_timestamp() - interval '{GONE_SECONDS} seconds') AS gone,
    (SELECT epoch || ' ' || number FROM route_counter) AS routes
"""  # noqa: S608 - the numbers in it are this program's


class LinkLostError(Exception):
    """PostgreSQL does not answer; the reason is in words."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat brings.

    Attributes:
        known: This replica is still one.
        others: Who else is there.
        gone: Somebody ended without a word, long ago.
        routes: Where the route log stands.
    """

    known: bool
    others: str
    gone: bool
    routes: str


class Link:
    """The connection; made anew when it is lost.

    Args:
        url: The database's address.
        heard: Called with the ids of each hint from another replica.
    """

    def __init__(self, url: str, heard: Callable[[tuple[str, ...]], None]) -> None:
        parsed = make_url(url)
        self._arguments = dict(parsed.get_dialect()().create_connect_args(parsed)[1])
        self._heard = heard
        self._connection: asyncpg.Connection | None = None
        self._to_tell: list[tuple[str, ...]] = []
        self._told = asyncio.Event()
        self._lock = asyncio.Lock()

    async def beat(self, replica: str) -> Beat:
        """Say that this replica is there.

        Raises:
            LinkLostError: The database did not hear it.
        """
        row = await self._call("fetchrow", _BEAT, replica)
        return Beat(row["known"], row["others"] or "", row["gone"], row["routes"] or "")

    def tell(self, ids: tuple[str, ...]) -> None:
        """Pass a hint on, soon."""
        self._to_tell.append(ids)
        self._told.set()

    async def keep_telling(self) -> None:
        """Pass hints on until cancelled; those that came together go together."""
        while True:
            await self._told.wait()
            self._told.clear()
            with suppress(LinkLostError):
                await self._pass_on()

    async def close(self) -> None:
        """Pass on what is left, which nobody else knows of, and close the connection."""
        if self._to_tell and self._connection is not None:
            with suppress(LinkLostError):
                await self._pass_on()
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=1)

    async def _pass_on(self) -> None:
        hints, self._to_tell = self._to_tell, []
        payload = " ".join(dict.fromkeys(one for ids in hints for one in ids))
        if len(payload) > LONGEST_PAYLOAD:
            payload = MISSED
        try:
            await self._call("execute", "SELECT pg_notify($1, $2)", CHANNEL, payload)
        except BaseException:
            self._to_tell.append((MISSED,))  # said with what is to tell next
            raise

    async def _call(self, method: str, *arguments: object) -> Any:
        try:
            async with self._lock, asyncio.timeout(ALIVE_SECONDS):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._connect()
                return await getattr(self._connection, method)(*arguments)
        except Exception as error:  # whatever the driver says: a heartbeat that ended is worse
            lost, self._connection = self._connection, None
            if lost is not None:
                lost.terminate()
            raise LinkLostError(str(error) or type(error).__name__) from error

    async def _connect(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(
            **self._arguments,
            timeout=CONNECT_SECONDS,
            server_settings={
                "application_name": LINK_NAME,
                "synchronous_commit": "off",  # a heartbeat that a crash loses is no loss
                "statement_timeout": f"{ALIVE_SECONDS}s",
            },
        )
        await connection.add_listener(CHANNEL, self._hear)
        self._heard((MISSED,))
        return connection

    def _hear(self, connection: asyncpg.Connection, pid: int, _channel: str, payload: str) -> None:
        if pid != connection.get_server_pid():
            self._heard(tuple(payload.split()))
