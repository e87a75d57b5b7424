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
    counter = (await session.exec(select(RouteCounter.epoch, RouteCounter.number))).first()
    if counter is None:
        return 0
    epoch, newest = counter
    in_contact = select(ProxyStatus.epoch, ProxyStatus.number).where(
        col(ProxyStatus.name).in_(list(proxies)), col(ProxyStatus.away).is_(False)
    )
    rows = (await session.exec(in_contact)).all()
    return min([*(number if its == epoch else -1 for its, number in rows), newest])
