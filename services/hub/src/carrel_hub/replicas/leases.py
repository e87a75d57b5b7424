"""What one replica does alone: taken over when its holder is gone, with a number that grows."""

from collections.abc import Sequence

import structlog
from sqlalchemy import update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.context import Hub
from carrel_hub.db.asking import ask_one, by_key
from carrel_hub.db.models import Lease, Replica, Server
from carrel_hub.replicas import alive

log = structlog.get_logger(__name__)


_LEASE = by_key(Lease, "name")


async def living(session: AsyncSession, hub: Hub) -> set[str]:
    """Return the ids of the replicas that are there, this process's own among them."""
    statement = select(Replica.id).where(alive(hub.database))
    return {*(await session.exec(statement)).all(), hub.database.replica}


async def hold(hub: Hub, name: str) -> bool:
    """Return whether this replica has the lease, after taking it if nobody else has."""
    lease = await hub.database.fetch_one(_LEASE, key=name)
    if lease is not None and lease.holder == hub.database.replica:
        return True
    async with hub.database.read() as session:
        lease = await session.get(Lease, name)
        if lease is not None and lease.holder == hub.database.replica:
            return True
        if lease is not None and lease.holder in await living(session, hub):
            return False
    async with hub.database.write() as session:
        lease = await session.get(Lease, name) or Lease(name=name, holder="")
        if lease.holder and lease.holder in await living(session, hub):
            return lease.holder == hub.database.replica
        lease.holder, lease.fence = hub.database.replica, lease.fence + 1
        session.add(lease)
    log.info("lease_taken", lease=name, fence=lease.fence)
    return True


async def still_holds(session: AsyncSession, hub: Hub, name: str) -> bool:
    """Return whether this replica has the lease in this transaction."""
    lease = await ask_one(session, _LEASE, key=name)
    return lease is not None and lease.holder == hub.database.replica


async def take_over(hub: Hub, servers: Sequence[tuple[str, str]]) -> set[str]:
    """Return which of these servers this replica drives, after taking over what nobody does.

    Args:
        servers: Their ids, each with its driver.
    """
    mine = {server_id for server_id, driver in servers if driver == hub.database.replica}
    if len(mine) == len(servers):
        return mine
    async with hub.database.read() as session:
        there = await living(session, hub)
    orphans = [server_id for server_id, driver in servers if driver not in there]
    if not orphans:
        return mine
    async with hub.database.write() as session:
        statement = (
            update(Server)
            .where(col(Server.id).in_(orphans), col(Server.driver).not_in(there))
            .values(driver=hub.database.replica, fence=col(Server.fence) + 1)
            .returning(col(Server.id))
            .execution_options(synchronize_session=False)
        )
        taken = set((await session.exec(statement)).scalars().all())
    log.info("servers_taken_over", count=len(taken))
    return mine | taken
