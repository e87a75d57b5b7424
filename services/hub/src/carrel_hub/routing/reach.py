"""Whether the proxies have a route yet."""

from collections.abc import Sequence

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import ProxyStatus, RouteCounter


async def reached_number(session: AsyncSession, proxies: Sequence[str]) -> int:
    """Return the number up to which every proxy in contact has the table.

    With no proxy in contact that is the newest: whoever comes back is brought up to date before it
    is counted again, so waiting for it would help nobody.
    """
    counter = (await session.exec(select(RouteCounter))).first()
    if counter is None:
        return 0
    rows = (
        await session.exec(select(ProxyStatus).where(col(ProxyStatus.name).in_(list(proxies))))
    ).all()
    behind = [row.number if row.epoch == counter.epoch else -1 for row in rows if not row.away]
    return min([*behind, counter.number])
