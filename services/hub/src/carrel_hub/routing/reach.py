"""Whether the proxies have a route yet."""

from collections.abc import Iterable, Sequence

from sqlalchemy import select as columns
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.asking import ask, ask_one
from carrel_hub.db.engine import Database
from carrel_hub.db.models import ProxyStatus
from carrel_hub.db.prepared import Prepared
from carrel_hub.routing.changes import POSITION, Position

_IN_CONTACT: Prepared[tuple[str, Position]] = Prepared(
    columns(col(ProxyStatus.name), col(ProxyStatus.epoch), col(ProxyStatus.number)).where(
        col(ProxyStatus.away).is_(False)
    ),
    lambda name, epoch, number: (name, Position(epoch, number)),
)


async def reached_number(session: AsyncSession, proxies: Sequence[str]) -> int:
    """Return the number up to which every proxy in contact has the table.

    With no proxy in contact that is the newest: whoever comes back is brought up to date before it
    is counted again, so waiting for it would help nobody.
    """
    newest = await ask_one(session, POSITION)
    return _reached(newest, await ask(session, _IN_CONTACT), proxies)


async def reached_now(database: Database, proxies: Sequence[str]) -> int:
    """Return the same outside of any transaction."""
    newest = await database.fetch_one(POSITION)
    return _reached(newest, await database.fetch(_IN_CONTACT), proxies)


def _reached(
    newest: Position | None, there: Iterable[tuple[str, Position]], proxies: Sequence[str]
) -> int:
    if newest is None:
        return 0
    numbers = (
        its.number if its.epoch == newest.epoch else -1 for name, its in there if name in proxies
    )
    return min([*numbers, newest.number])
