"""The line of starts: how many may be under way at once, who is next, and how long that takes.

A start that finds no room is a row that waits: `queued`, without `admitted_at`. Rows are let in in
the order in which they came, by whichever hub first sees room. No time limit runs while one waits.
Writers follow one another, so what is counted in a transaction stays true until its end.
"""

import secrets
from datetime import datetime

from sqlalchemy import ColumnElement, and_
from sqlalchemy import select as columns
from sqlmodel import col, func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.asking import ask_one
from carrel_hub.db.models import Server
from carrel_hub.db.prepared import Prepared
from carrel_hub.errors import TooManyRequestsError
from carrel_hub.spawns.standing import ARRIVAL, waits
from carrel_hub.spawns.states import State
from carrel_hub.spawns.transitions import enter_start, tell


def under_way() -> ColumnElement[bool]:
    """The rows that take room: their start was let in and has come to nothing yet."""
    return or_(
        col(Server.state) == State.STARTING,
        and_(col(Server.state) == State.QUEUED, col(Server.admitted_at).is_not(None)),
    )


def _counted(which: ColumnElement[bool]) -> Prepared[int]:
    return Prepared(columns(func.count()).select_from(Server).where(which), int)


_WAITING, _UNDER_WAY = _counted(waits()), _counted(under_way())


async def find_room(session: AsyncSession, hub: Hub) -> int | None:
    """Return how many starts wait before a new one, or None when it may go ahead at once.

    Raises:
        TooManyRequestsError: As many wait as may (`spawn_queue_limit`).
    """
    limit, most = hub.settings.concurrent_spawn_limit, hub.settings.spawn_queue_limit
    if not limit:
        return None
    waiting = await _count(session, _WAITING)
    if not waiting and await _count(session, _UNDER_WAY) < limit:
        return None
    if most is not None and waiting >= most:
        wait = 30 + secrets.randbelow(31)
        hub.measures.refused_start("throttled")
        raise TooManyRequestsError(
            f"{limit} servers are being started, which is as many as may be at once, and"
            f" {waiting} more wait for their turn; try again in {wait} seconds",
            headers={"Retry-After": str(wait)},
        )
    return waiting


def join(
    session: AsyncSession, row: Server, before: int | None, *, at: datetime, actor: str
) -> None:
    """Let a start in for which there is room, or have it wait behind those that came before.

    Args:
        before: What `find_room` returned in this transaction.
    """
    if before is None:
        enter_start(session, row, at=at)
        return
    row.progress_message = "Waiting for its turn to start"
    session.add(row)
    tell(session, row, "server.waiting", at=at, actor=actor, data={"before": before})


async def let_in(hub: Hub) -> tuple[list[str], int]:
    """Let in whoever is first in the line while there is room.

    Returns:
        The servers that were let in, and how many wait still.
    """
    async with hub.database.read() as session:
        if not await _count(session, _WAITING):
            return [], 0
    limit = hub.settings.concurrent_spawn_limit
    async with hub.database.write() as session:
        room = limit - await _count(session, _UNDER_WAY) if limit else None
        waiting = await _count(session, _WAITING)
        if room is not None and room <= 0:
            return [], waiting
        first = select(Server).where(waits()).order_by(*ARRIVAL).limit(room)
        rows = (await session.exec(first)).all()
        for row in rows:
            enter_start(session, row, at=hub.clock.now())
    return [row.id for row in rows], waiting - len(rows)


async def _count(session: AsyncSession, which: Prepared[int]) -> int:
    return await ask_one(session, which) or 0
