"""The numbered change log of routes and revocations.

One counter row gives the numbers. It is updated in the transaction that changes routes, and holds
its row until that transaction ends, so numbers are committed in their order: whoever reads the
counter at 12 finds every change up to 12.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import structlog
from msgspec import to_builtins
from sqlalchemy import delete, insert, update
from sqlalchemy import select as columns
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.asking import ask_one, do, do_returning
from carrel_hub.db.engine import ROUTES_CHANGED
from carrel_hub.db.models import RouteChange, RouteCounter, Server
from carrel_hub.db.prepared import Prepared
from carrel_shared.wire.routes import Change, Revocation, Revoke

log = structlog.get_logger(__name__)

KEPT_CHANGES = 2000
"""How many changes are kept. A proxy that is further behind is sent the whole table."""

_PRUNE_EVERY = 256

_COUNT = (
    update(RouteCounter)
    .where(col(RouteCounter.id) == 1)
    .values(number=col(RouteCounter.number) + 1)
    .returning(col(RouteCounter.number))
)
_APPEND = insert(RouteChange)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the change log."""

    epoch: str
    number: int


POSITION = Prepared(
    columns(col(RouteCounter.epoch), col(RouteCounter.number)),
    Position,
)
"""Where the log stands; no row before the first change."""


def new_epoch() -> str:
    """Return a name for a new lineage of the change log."""
    return secrets.token_hex(8)


async def ensure_counter(
    session: AsyncSession, origin: str, *, at: datetime | None = None
) -> Position:
    """Make the counter if need be, and begin a new epoch when every route would look different.

    Args:
        origin: What all routes are built from (base URL, the hub's own address). Proxies that
            were pushed to under another one must be sent the whole table.
        at: The time, for an epoch that begins now.
    """
    counter = await session.get(RouteCounter, 1)
    if counter is None:
        counter = RouteCounter(id=1, epoch=new_epoch(), number=0, origin=origin, begun_at=at)
        session.add(counter)
    elif counter.origin != origin:
        counter.epoch, counter.origin, counter.begun_at = new_epoch(), origin, at
    await session.flush()
    return Position(counter.epoch, counter.number)


async def begin_epoch_beyond(session: AsyncSession, number: int, *, at: datetime) -> None:
    """Begin a new epoch when the log ends before a number that a proxy was given of it.

    Numbers reach proxies after they were committed, so commits were lost: an older copy of the
    database was put in place. The same numbers would mean other changes from here on.
    """
    counter = (await session.exec(select(RouteCounter))).first()
    if counter is not None and counter.number < number:
        log.warning("database_went_back", number=counter.number, known=number)
        counter.epoch, counter.begun_at = new_epoch(), at
        session.add(counter)


async def position(session: AsyncSession) -> Position | None:
    """Return where the log stands, or None before the first change."""
    return await ask_one(session, POSITION)


async def append_change(session: AsyncSession, change: Change) -> int:
    """Add a change to the log and return its number. Call it last: it serialises its callers.

    The push begins when `Database.write` has committed.
    """
    number = await do_returning(session, _COUNT, {})
    if number is None:
        await ensure_counter(session, "")
        number = await do_returning(session, _COUNT, {}) or 0
    session.info[ROUTES_CHANGED] = True
    await do(session, _APPEND, {"number": number, "payload": to_builtins(change)})
    if number % _PRUNE_EVERY == 0:
        await session.exec(
            delete(RouteChange).where(col(RouteChange.number) <= number - KEPT_CHANGES)
        )
    return number


async def revoke(session: AsyncSession, revocation: Revocation) -> int:
    """Take access away in every proxy, in the transaction that takes it away in the database."""
    return await append_change(session, Revoke(revocation=revocation))


async def decide_anew(session: AsyncSession, owners: Iterable[int | None]) -> None:
    """Have every proxy ask again who may use these users' servers. Call it last.

    What is open stays open for those who still may.
    """
    statement = select(Server.id).where(
        col(Server.user_id).in_(list(owners)), col(Server.route_number).is_not(None)
    )
    for server_id in (await session.exec(statement)).all():
        await revoke(session, Revocation(server_id=server_id))
