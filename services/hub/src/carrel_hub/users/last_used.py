"""When users and servers were last used, as many at a time as come in while one commit runs.

Thousands of servers say now and then that they are in use. Each is answered once that is stored;
those that come while others are being written share the next transaction. Times only move forward.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, Update, bindparam
from sqlmodel import col, or_, select, update

from carrel_hub.db.asking import do
from carrel_hub.db.engine import Database
from carrel_hub.db.models import Server, User

MOST = 250
"""How many rows one transaction changes. Nobody else is answered while they are put in."""

_AT: BindParameter[datetime] = bindparam("at")
_OF_SERVER = (
    update(Server)
    .where(
        col(Server.id) == bindparam("which"),
        or_(col(Server.last_activity).is_(None), col(Server.last_activity) < _AT),
    )
    .values(last_activity=_AT)
)
_OF_USER = (
    update(User)
    .where(
        col(User.id) == bindparam("which"),
        or_(col(User.last_activity).is_(None), col(User.last_activity) < _AT),
    )
    .values(last_activity=_AT)
)
_OF_OWNER = (
    update(User)
    .where(
        col(User.id)
        == select(Server.user_id).where(col(Server.id) == bindparam("which")).scalar_subquery(),
        or_(col(User.last_activity).is_(None), col(User.last_activity) < _AT),
    )
    .values(last_activity=_AT)
)


class LastUsed:
    """What is yet to be written."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._users: dict[int, datetime] = {}
        self._servers: dict[str, datetime] = {}

    async def write(
        self,
        database: Database,
        users: Mapping[int, datetime],
        servers: Mapping[str, datetime],
    ) -> None:
        """Return when these are stored: users by id, servers by id.

        Raises:
            SQLAlchemyError: They could not be.
        """
        _gather(self._users, users)
        _gather(self._servers, servers)
        async with self._turn:
            if users.keys() <= self._users.keys() and servers.keys() <= self._servers.keys():
                await self._write_all(database)

    async def _write_all(self, database: Database) -> None:
        users, servers = self._users, self._servers
        self._users, self._servers = {}, {}
        try:
            await _store(database, [(_OF_USER, users), (_OF_SERVER, servers)])
        except BaseException:  # whoever waits for the same tries next
            _gather(self._users, users)
            _gather(self._servers, servers)
            raise


async def store_servers(database: Database, servers: Mapping[str, datetime]) -> None:
    """Store when servers, by id, were last used, and so their owners."""
    await _store(database, [(_OF_SERVER, servers), (_OF_OWNER, servers)])


async def _store(database: Database, work: list[tuple[Update, Mapping[Any, datetime]]]) -> None:
    for statement, times in work:
        rows = [{"which": key, "at": at} for key, at in times.items()]
        for start in range(0, len(rows), MOST):
            async with database.write() as session:
                await do(session, statement, *rows[start : start + MOST])


def _gather(known: dict[Any, datetime], new: Mapping[Any, datetime]) -> None:
    for key, at in new.items():
        known[key] = max(at, known.get(key, at))
